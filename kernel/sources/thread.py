# SPDX-License-Identifier: GPL-2.0-or-later
"""Which mails of a thread are the patches of a series, and of which version.

A patch is a mail with a diff that answers to none: a reviewer's "Re: ..." with a diff is an idea,
and so is a diff without a number that is sent in answer to a series. A cover letter (0/n) is none,
whatever diff it has. Of several versions of a series the newest is taken, or the one that was asked
for. A series with a number missing is refused: half a series is another kernel than was sent.
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

PATCHES = 1000  # of one series
MAILS = 5000  # with diffs, and cover letters, in one thread
_QUILT = "to apply some of them only, list their files in a file `series`, as quilt has it"


def series(
    items: Sequence[Item],
    name: str,
    version: int | None = None,
    omitted: Sequence[Omitted] = (),
    alone: bool = False,
) -> Series:
    """The series in some mails.

    version: None takes the newest. omitted: what was left out before. alone: they are one file,
    so a single patch of a series is what was meant. Raises UsageError for a version that is not
    there, a number that is missing, two patches with one number.
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
            self._thread(item) for item in patches if item.subject.number and not item.answers
        }
        own = [item for item in patches if not self._is_reply(item, numbered)]
        if not own and len(patches) == 1:  # one reply, and it was named
            own = patches
        covers = [item for item in self.items if item.subject.number == 0 and not item.answers]
        for item in covers:
            diff = ", whose diff is between two versions" if item.scan.interdiffs else ""
            self._leave(item, f"the cover letter{diff}")
        for item in patches:
            if item not in own:
                self._leave(item, "a reply; its diff is no patch of the series")
        if not own:
            raise self._nothing(patches)
        for item in own:
            if item.scan.interdiffs:
                self._leave(item, "the diff between two versions behind its own")
        if html := [item for item in own if item.mail.html]:
            first = f"{html[0].title}" + (f" and {len(html) - 1} more" if html[1:] else "")
            self.omitted.append(Omitted(first, "the HTML beside the text"))
        postings = self._chosen(self._postings(own, covers), covers)
        taken = [item for one in postings for _, item in sorted(one.items.items())]
        if len(taken) > PATCHES:
            raise UsageError(f"{self.name} has more than {PATCHES} patches")
        kind = (
            all(one.is_rfc for one in postings),
            all(one.is_resend for one in postings),
        )
        versions = {one.subject.version for one in own if one.subject.is_patch}
        chosen = max((one.version for one in postings), default=0)
        about = [one for one in covers if one.subject.version == chosen]
        like = [one for one in about if (one.subject.is_rfc, one.subject.is_resend) == kind]
        described = (like or about) + taken
        return _series(self.name, taken, self.omitted, described, chosen, sorted(versions))

    def _nothing(self, replies: Sequence[Item]) -> UsageError:
        hint = "a series is a folder of *.patch files, an mbox or one patch"
        if replies:
            hint = "it has only replies with diffs: save the one that is meant to a file"
        elif html := next((item for item in self.items if item.mail.html), None):
            hint = f"{html.title!r} has its diff in HTML only: take the mail as plain text"
        return UsageError(f"{self.name} has no patches in it", hint=hint)

    def _leave(self, item: Item, why: str) -> None:
        outer = item.mail.inside
        mail = outer if outer and subject.parse(outer.subject).is_answer else item.mail
        self.omitted.append(Omitted(mail.subject or item.name, why, mail.author))

    def _thread(self, item: Item) -> str:
        mail = item.mail.inside or item.mail
        return self.root.get(mail.message_id, "")

    def _is_reply(self, item: Item, numbered: set[str]) -> bool:
        if item.answers:
            return True
        about = item.subject
        known = [one for one in item.mail.answers if one in self.by_id]
        if about.number or not known:
            return False
        answered = self.by_id[known[0]].subject
        same = about.title.casefold() == answered.title.casefold()
        if same and answered.is_rfc and not about.is_rfc and answered.total < 2:
            return False  # what was made of the request for comments
        if self._thread(item) in numbered:
            return True
        return about.version <= answered.version

    def _postings(self, items: Sequence[Item], covers: Sequence[Item]) -> list[Posting]:
        postings: list[Posting] = []
        singles: set[tuple[int, bytes]] = set()
        split = sent.Split(items)
        alike: dict[tuple[int, int, bool, bool], list[Posting]] = {}
        together = Counter(self._sent_with(item) for item in (*items, *covers))
        for item in items:
            about = item.subject
            if not about.number:
                posting = Posting(about.version if about.is_patch else 0, 0, {1: item})
                if about.is_patch and (about.version, item.scan.text) in singles:
                    self._leave(item, "there twice")
                else:
                    postings.append(posting)
                singles.add((about.version, item.scan.text))
                continue
            same = alike.setdefault(split.key(item), [])
            place = self._place(item, same, alone=together[self._sent_with(item)] < 2)
            if place is None:
                place = Posting(about.version, about.total)
                postings.append(place)
                same.append(place)
            if about.number not in place.items:
                place.items[about.number] = item
            elif place.items[about.number].scan.text == item.scan.text:
                self._leave(item, "there twice")
        kept, copies = sent.without_copies(postings)
        for item in copies:
            self._leave(item, "there twice")
        return kept

    def _sent_with(self, item: Item) -> tuple[int, int, str | Item]:
        """What mails of one version in one thread have in common."""
        return item.subject.version, item.subject.total, self._thread(item) or item

    def _place(self, item: Item, postings: Sequence[Posting], *, alone: bool) -> Posting | None:
        """The posting that a patch belongs to; alone: its thread has no other patch of it."""
        number, thread = item.subject.number or 0, self._thread(item)
        for one in postings:
            others = one.items.values()
            again = number in one.items and one.items[number].scan.text == item.scan.text
            if thread and any(self._thread(other) == thread for other in others):
                if number in one.items and not again:
                    raise UsageError(
                        f"{self.name} has two patches {_number(item)}: "
                        f"{one.items[number].title!r} and {item.title!r}",
                        hint="save the series that is meant to a file of its own",
                    )
                return one
            if again and alone:
                return one
        return next((one for one in reversed(postings) if number not in one.items), None)

    def _chosen(self, postings: list[Posting], covers: Sequence[Item]) -> list[Posting]:
        """Of each series the newest version, or the one that was asked for; complete."""
        groups = self._groups(postings, covers)
        chosen: list[Posting] = []
        for group in groups:
            versions = sorted({one.version for one in group})
            if self.version is None or versions == [0]:
                taken = sent.newest(group, covers, self.name)
            else:
                if self.version not in versions:
                    there = ", ".join(f"v{one}" for one in versions)
                    raise UsageError(
                        f"{self.name} has no version {self.version} of "
                        f"{group[0].first.subject.title!r}, but {there}"
                    )
                taken = sent.of_version(group, self.version)
            last = sent.sent_last(taken, self.name)
            chosen += last
            for one in group:
                if one not in last:
                    self._leave(one.first, _not_taken(one, last[0]))
        chosen.sort(key=postings.index)
        for one in chosen:
            self._check(one, postings, alone=self.alone and len(self.items) == 1)
        return chosen

    def _check(self, posting: Posting, postings: Sequence[Posting], alone: bool) -> None:
        if posting.total > PATCHES:
            raise UsageError(
                f"{self.name}: {posting.first.title!r} is of more than {PATCHES} patches",
                hint=_QUILT,
            )
        numbers = range(1, posting.total + 1)
        missing = [str(one) for one in numbers if one not in posting.items][:10]
        extra = [number for number in posting.items if posting.total and number not in numbers]
        if extra:
            raise UsageError(f"{self.name} has a patch {extra[0]}/{posting.total}")
        if not missing or alone:
            return
        version = f" of v{posting.version}" if len({one.version for one in postings}) > 1 else ""
        empty = [
            item
            for item in self.items
            if item.subject.number and str(item.subject.number) in missing and not item.scan.files
        ]
        has = "its diff in HTML only" if empty and empty[0].mail.html else "no diff"
        why = f" ({empty[0].title!r} has {has})" if empty and not empty[0].answers else ""
        others = sorted({one.version for one in postings} - {posting.version})
        hint = f"--series-version {others[-1]} takes another version; " if others else ""
        raise UsageError(
            f"{self.name}: patch {', '.join(missing)} of {posting.total}{version} is missing{why}",
            hint=f"{hint}fetch the whole thread; {_QUILT}",
        )

    def _groups(self, postings: Sequence[Posting], covers: Sequence[Item]) -> list[list[Posting]]:
        """The postings of each series: of one thread, with one title or one change-id."""
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
    """Patches whose order and choice somebody has written down."""
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
    """Why a posting is left out."""
    count = f" ({len(posting.items)} patches)" if len(posting.items) > 1 else ""
    if posting.is_rfc != taken.is_rfc:
        kind = "a request for comments" if posting.is_rfc else "not the request for comments"
        return f"{kind}, v{posting.version}{count}"
    if posting.version == taken.version:
        return f"sent again, v{posting.version}{count}"
    which = "an older" if posting.version < taken.version else "a newer"
    return f"{which} version, v{posting.version}{count}"


def _number(item: Item) -> str:
    version = f"v{item.subject.version} " if item.subject.version > 1 else ""
    return f"{version}{item.subject.number}/{item.subject.total}"


def _roots(mails: Iterable[Mail]) -> dict[str, str]:
    """Message id → one id of its thread, for mails that answer to each other."""
    parent: dict[str, str] = {}

    def find(one: str) -> str:
        parent.setdefault(one, one)
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for mail in mails:
        if mail.message_id:
            for other in mail.answers:
                parent[find(mail.message_id)] = find(other)
            find(mail.message_id)
    return {one: find(one) for one in list(parent)}


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
