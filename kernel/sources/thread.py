# SPDX-License-Identifier: GPL-2.0-or-later
"""Selects the mails of a thread that are the patches of a series, and its version.

A patch is a mail with a diff that is not a reply: a reviewer's "Re: ..." with a diff is a proposal,
and so is an unnumbered diff in reply to a series. A cover letter (0/n) is not a patch, even with a
diff. Of several versions the newest or the requested one is taken. A series with a missing number
is an error: applying a part of it would test another kernel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources import postings as sent
from blockyard.kernel.sources import subject
from blockyard.kernel.sources.items import Item, facts_of
from blockyard.kernel.sources.mail import Mail
from blockyard.kernel.sources.patches import Omitted, Patch, Series
from blockyard.kernel.sources.postings import Posting

PATCHES = 1000  # limit for a series
MAILS = 5000  # limit for a thread: mails with diffs, and cover letters
_QUILT = "to apply only some of them, list their files in a file `series`, as quilt does"


def series(
    items: Sequence[Item],
    name: str,
    version: int | None = None,
    omitted: Sequence[Omitted] = (),
    alone: bool = False,
) -> Series:
    """The series in some mails.

    version: None takes the newest. omitted: what the caller left out. alone: the items are from a
    single file, which may be a single patch of a series. Raises UsageError for a missing version, a
    missing number, and two patches with one number.
    """
    return _Thread(items, name, version, list(omitted), alone).series()


class _Thread:
    def __init__(
        self,
        items: Sequence[Item],
        name: str,
        version: int | None,
        omitted: list[Omitted],
        alone: bool,
    ) -> None:
        self.items, self.name, self.version, self.omitted = items, name, version, omitted
        self.alone = alone
        self.root = _roots(item.mail for item in items)
        self.by_id = {item.mail.message_id: item for item in items if item.mail.message_id}

    def series(self) -> Series:
        if sum(item.is_patch or item.subject.number == 0 for item in self.items) > MAILS:
            raise UsageError(f"{self.name} has more than {MAILS} mails with diffs")
        patches = [item for item in self.items if item.is_patch]
        numbered = {
            self._thread(item) for item in patches if item.subject.number and not item.is_reply
        }
        originals = [item for item in patches if not self._is_reply(item, numbered)]
        if not originals and len(patches) == 1:  # a single reply, named by the user
            originals = patches
        covers = [item for item in self.items if item.subject.number == 0 and not item.is_reply]
        for item in covers:
            diff = ", whose diff is an interdiff" if item.scan.interdiffs else ""
            self._omit(item, f"the cover letter{diff}")
        for item in patches:
            if item not in originals:
                self._omit(item, "a reply; its diff is not part of the series")
        if not originals:
            raise self._no_patches(patches)
        for item in originals:
            if item.scan.interdiffs:
                self._omit(item, "the interdiff after the patch")
        if html := [item for item in originals if item.mail.html]:
            first = f"{html[0].title}" + (f" and {len(html) - 1} more" if html[1:] else "")
            self.omitted.append(Omitted(first, "the HTML beside the text"))
        postings = self._chosen(self._postings(originals, covers), covers)
        taken = [item for posting in postings for _, item in sorted(posting.items.items())]
        if len(taken) > PATCHES:
            raise UsageError(f"{self.name} has more than {PATCHES} patches")
        kind = (
            all(posting.is_rfc for posting in postings),
            all(posting.is_resend for posting in postings),
        )
        versions = {item.subject.version for item in originals if item.subject.is_patch}
        version = max((posting.version for posting in postings), default=0)
        of_version = [cover for cover in covers if cover.subject.version == version]
        of_kind = [
            cover for cover in of_version if (cover.subject.is_rfc, cover.subject.is_resend) == kind
        ]
        described = (of_kind or of_version) + taken
        return _series(self.name, taken, self.omitted, described, version, sorted(versions))

    def _no_patches(self, replies: Sequence[Item]) -> UsageError:
        hint = "a series is a folder of *.patch files, an mbox or one patch"
        if replies:
            hint = "it has only replies with diffs: save the right one to a file of its own"
        elif html := next((item for item in self.items if item.mail.html), None):
            hint = f"{html.title!r} has its diff in HTML only: get the mail as plain text"
        return UsageError(f"{self.name} has no patches", hint=hint)

    def _omit(self, item: Item, why: str) -> None:
        outer = item.mail.inside
        mail = outer if outer and subject.parse(outer.subject).is_reply else item.mail
        self.omitted.append(Omitted(mail.subject or item.name, why, mail.author))

    def _thread(self, item: Item) -> str:
        """The id of an item's thread; empty for a mail without id."""
        mail = item.mail.inside or item.mail
        return self.root.get(mail.message_id, "")

    def _is_reply(self, item: Item, numbered: set[str]) -> bool:
        """Whether an item is a reply; numbered: threads that have numbered patches."""
        if item.is_reply:
            return True
        about = item.subject
        known = [parent for parent in item.mail.replies_to if parent in self.by_id]
        if about.number or not known:
            return False
        parent = self.by_id[known[0]].subject
        same = about.title.casefold() == parent.title.casefold()
        if same and parent.is_rfc and not about.is_rfc and parent.total < 2:
            return False  # the patch that follows its RFC
        if self._thread(item) in numbered:
            return True
        return about.version <= parent.version

    def _postings(self, items: Sequence[Item], covers: Sequence[Item]) -> list[Posting]:
        postings: list[Posting] = []
        singles: set[tuple[int, bytes]] = set()
        split = sent.Split(items)
        by_key: dict[tuple[int, int, bool, bool], list[Posting]] = {}
        group_sizes = Counter(self._group(item) for item in (*items, *covers))
        for item in items:
            about = item.subject
            if not about.number:
                posting = Posting(about.version if about.is_patch else 0, 0, {1: item})
                if about.is_patch and (about.version, item.scan.text) in singles:
                    self._omit(item, "a duplicate")
                else:
                    postings.append(posting)
                singles.add((about.version, item.scan.text))
                continue
            candidates = by_key.setdefault(split.key(item), [])
            found = self._find(item, candidates, alone=group_sizes[self._group(item)] < 2)
            if found is None:
                found = Posting(about.version, about.total)
                postings.append(found)
                candidates.append(found)
            if about.number not in found.items:
                found.items[about.number] = item
            elif found.items[about.number].scan.text == item.scan.text:
                self._omit(item, "a duplicate")
        kept, copies = sent.without_copies(postings)
        for item in copies:
            self._omit(item, "a duplicate")
        return kept

    def _group(self, item: Item) -> tuple[int, int, str | Item]:
        """A key that mails of one version in one thread share."""
        return item.subject.version, item.subject.total, self._thread(item) or item

    def _find(self, item: Item, postings: Sequence[Posting], *, alone: bool) -> Posting | None:
        """The posting of a patch, or None; alone: its thread has no other patch of its version.

        Raises UsageError for two different patches with one number in one thread.
        """
        number, thread = item.subject.number or 0, self._thread(item)
        for posting in postings:
            others = posting.items.values()
            again = number in posting.items and posting.items[number].scan.text == item.scan.text
            if thread and any(self._thread(other) == thread for other in others):
                if number in posting.items and not again:
                    raise UsageError(
                        f"{self.name} has two patches {_number(item)}: "
                        f"{posting.items[number].title!r} and {item.title!r}",
                        hint="save the right series to a file of its own",
                    )
                return posting
            if again and alone:
                return posting
        return next((last for last in reversed(postings) if number not in last.items), None)

    def _chosen(self, postings: list[Posting], covers: Sequence[Item]) -> list[Posting]:
        """The newest or the requested version of each series. Raises UsageError; see `series`."""
        groups = self._groups(postings, covers)
        chosen: list[Posting] = []
        for group in groups:
            versions = sorted({posting.version for posting in group})
            if self.version is None or versions == [0]:
                taken = sent.newest(group, covers, self.name)
            else:
                if self.version not in versions:
                    known = ", ".join(f"v{version}" for version in versions)
                    raise UsageError(
                        f"{self.name} has no version {self.version} of "
                        f"{group[0].first.subject.title!r}, but {known}"
                    )
                taken = sent.of_version(group, self.version)
            last = sent.sent_last(taken, self.name)
            chosen += last
            for posting in group:
                if posting not in last:
                    self._omit(posting.first, _not_taken(posting, last[0]))
        chosen.sort(key=postings.index)
        for posting in chosen:
            self._check(posting, postings, alone=self.alone and len(self.items) == 1)
        return chosen

    def _check(self, posting: Posting, postings: Sequence[Posting], alone: bool) -> None:
        """Raises UsageError for a posting that is too large or incomplete."""
        if posting.total > PATCHES:
            raise UsageError(
                f"{self.name}: the series of {posting.first.title!r} has more than "
                f"{PATCHES} patches",
                hint=_QUILT,
            )
        numbers = range(1, posting.total + 1)
        missing = [str(number) for number in numbers if number not in posting.items][:10]
        extra = [number for number in posting.items if posting.total and number not in numbers]
        if extra:
            raise UsageError(f"{self.name}: invalid patch number {extra[0]}/{posting.total}")
        if not missing or alone:
            return
        versions = {other.version for other in postings}
        version = f" of v{posting.version}" if len(versions) > 1 else ""
        empty = [
            item
            for item in self.items
            if item.subject.number and str(item.subject.number) in missing and not item.scan.files
        ]
        has = "its diff in HTML only" if empty and empty[0].mail.html else "no diff"
        why = f" ({empty[0].title!r} has {has})" if empty and not empty[0].is_reply else ""
        others = sorted(versions - {posting.version})
        hint = f"--series-version {others[-1]} takes another version; " if others else ""
        raise UsageError(
            f"{self.name}: patch {', '.join(missing)} of {posting.total}{version} is missing{why}",
            hint=f"{hint}fetch the whole thread; {_QUILT}",
        )

    def _groups(self, postings: Sequence[Posting], covers: Sequence[Item]) -> list[list[Posting]]:
        """Groups postings by series: those that share a thread, a title or a change-id."""
        parent = list(range(len(postings)))

        def find(at: int) -> int:
            while parent[at] != at:
                parent[at] = parent[parent[at]]
                at = parent[at]
            return at

        first: dict[tuple[str, str], int] = {}
        for at, posting in enumerate(postings):
            if not posting.version:
                continue
            for mark in self._marks(posting, covers):
                parent[find(at)] = find(first.setdefault(mark, at))
        groups: dict[int, list[Posting]] = {}
        for at, posting in enumerate(postings):
            groups.setdefault(find(at), []).append(posting)
        return list(groups.values())

    def _marks(self, posting: Posting, covers: Sequence[Item]) -> Iterable[tuple[str, str]]:
        """The titles, change-ids and threads of a posting, with their kind."""
        items = list(posting.items.values())
        threads = {thread for item in items if (thread := self._thread(item))}
        for cover in covers:
            about = cover.subject
            if (about.version, about.total) == (posting.version, posting.total) and (
                not threads or self._thread(cover) in threads
            ):
                items.append(cover)
        for item in items:
            yield "title", item.subject.title.casefold()
            if item.change_id:
                yield "change-id", item.change_id
        yield from (("thread", thread) for thread in threads)


def as_listed(items: Sequence[Item], name: str, omitted: Sequence[Omitted]) -> Series:
    """A series from patches that the user selected and ordered in quilt's file `series`."""
    if len(items) > PATCHES:
        raise UsageError(f"{name} has more than {PATCHES} patches")
    return _series(name, items, omitted, items)


def _series(
    name: str,
    items: Sequence[Item],
    omitted: Sequence[Omitted],
    described: Sequence[Item],
    version: int = 0,
    versions: Sequence[int] = (),
) -> Series:
    if problem := next((item.problem for item in items if item.problem), None):
        raise problem
    facts = facts_of(described)
    return Series(
        name,
        tuple(_patch(item) for item in items),
        tuple(omitted),
        version,
        tuple(versions),
        facts.base_commit,
        facts.change_id,
        facts.prerequisites,
        facts.trailers,
    )


def _not_taken(posting: Posting, taken: Posting) -> str:
    """Why a posting is omitted."""
    count = f" ({len(posting.items)} patches)" if len(posting.items) > 1 else ""
    if posting.is_rfc != taken.is_rfc:
        kind = "an RFC" if posting.is_rfc else "not the RFC"
        return f"{kind}, v{posting.version}{count}"
    if posting.version == taken.version:
        return f"sent again, v{posting.version}{count}"
    which = "an older" if posting.version < taken.version else "a newer"
    return f"{which} version, v{posting.version}{count}"


def _number(item: Item) -> str:
    version = f"v{item.subject.version} " if item.subject.version > 1 else ""
    return f"{version}{item.subject.number}/{item.subject.total}"


def _roots(mails: Iterable[Mail]) -> dict[str, str]:
    """Message id → an id that stands for its thread, for mails that reply to each other."""
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for mail in mails:
        if mail.message_id:
            for other in mail.replies_to:
                parent[find(mail.message_id)] = find(other)
            find(mail.message_id)
    return {name: find(name) for name in list(parent)}


def _patch(item: Item) -> Patch:
    about = item.subject
    return Patch(
        item.name,
        item.scan.text,
        about.title,
        item.mail.author or (item.mail.inside.author if item.mail.inside else ""),
        about.number or 0,
        about.total,
        about.version if about.is_patch else 0,
        item.mail.message_id,
        item.strip,
    )
