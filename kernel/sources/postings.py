# SPDX-License-Identifier: GPL-2.0-or-later
"""Postings: patches that were sent together; and which of several postings is the newest.

RFCs and patches count versions separately: [RFC v2] comes before [PATCH]. So an RFC and a patch
posting are compared by which one replies to the other, then by date. If neither decides, the user
has to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources.items import Item


@dataclass(eq=False)
class Posting:
    """The patches of a version of a series that were sent together."""

    version: int
    total: int
    items: dict[int, Item] = field(default_factory=dict)  # by number

    @property
    def first(self) -> Item:
        """The patch with the lowest number."""
        return self.items[min(self.items)]

    @property
    def is_rfc(self) -> bool:
        """Whether all patches have the tag RFC."""
        return all(item.subject.is_rfc for item in self.items.values())

    @property
    def is_resend(self) -> bool:
        """Whether all patches have the tag RESEND."""
        return all(item.subject.is_resend for item in self.items.values())

    def is_like(self, other: Posting) -> bool:
        """Whether both have as many patches, and a patch with the same number and title."""
        titles = {(at, item.subject.title.casefold()) for at, item in other.items.items()}
        return self.total == other.total and any(
            (at, item.subject.title.casefold()) in titles for at, item in self.items.items()
        )

    def is_in(self, other: Posting) -> bool:
        """Whether the other posting has all of its patches, unchanged."""
        return all(
            at in other.items and other.items[at].scan.text == item.scan.text
            for at, item in self.items.items()
        )


class Split:
    """Decides whether the tags RFC and RESEND split the patches of a version into two postings.

    They do if a patch number exists both with and without the tag. If only some patches of a single
    posting have the tag, it is ignored.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        seen: dict[tuple[int, int, int, str], set[bool]] = {}
        self.split: set[tuple[int, int, str]] = set()
        for item in items:
            about = item.subject
            if not about.number:
                continue
            for tag, has in (("rfc", about.is_rfc), ("resend", about.is_resend)):
                values = seen.setdefault((about.version, about.total, about.number, tag), set())
                values.add(has)
                if len(values) > 1:
                    self.split.add((about.version, about.total, tag))

    def key(self, item: Item) -> tuple[int, int, bool, bool]:
        """A key that patches of the same posting share."""
        about = item.subject
        version, total = about.version, about.total
        rfc = about.is_rfc and (version, total, "rfc") in self.split
        return version, total, rfc, about.is_resend and (version, total, "resend") in self.split


def without_copies(postings: Sequence[Posting]) -> tuple[list[Posting], list[Item]]:
    """The postings that are not contained in another one, and the patches of those that are."""
    by_patch: dict[tuple[int, int, int, bytes], list[Posting]] = {}
    for posting in postings:
        for number, item in posting.items.items():
            key = (posting.version, posting.total, number, item.scan.text)
            by_patch.setdefault(key, []).append(posting)
    index = {id(posting): at for at, posting in enumerate(postings)}
    kept, copies = [], []
    for posting in postings:
        key = (posting.version, posting.total, min(posting.items), posting.first.scan.text)
        if posting.total and any(
            posting.is_in(other)
            and (len(other.items) > len(posting.items) or index[id(other)] < index[id(posting)])
            for other in by_patch[key]
            if other is not posting
        ):
            copies += list(posting.items.values())
        else:
            kept.append(posting)
    return kept, copies


def of_version(group: Sequence[Posting], version: int) -> list[Posting]:
    """The postings of a version, without RFCs if it has others."""
    postings = [posting for posting in group if posting.version == version]
    return [posting for posting in postings if not posting.is_rfc] or postings


def newest(group: Sequence[Posting], covers: Sequence[Item], name: str) -> list[Posting]:
    """The newest postings of a series. Raises UsageError if that cannot be decided."""
    rfcs = _highest([posting for posting in group if posting.is_rfc])
    patches = _highest([posting for posting in group if not posting.is_rfc])
    if not rfcs or not patches:
        return rfcs or patches
    rfc, patch = rfcs[0].version, patches[0].version
    order = _order(list(_mails(rfcs, covers)), list(_mails(patches, covers)))
    if order < 0 or (order == 0 and rfc < patch):
        return patches
    if order > 0 and rfc > patch:
        return rfcs
    hint = f"--series-version {patch} takes the patches"
    hint += (
        "; for the RFC save it to a file of its own"
        if patch == rfc
        else f", --series-version {rfc} the RFC"
    )
    raise UsageError(
        f"{name}: cannot tell which of {rfcs[0].first.title!r} and "
        f"{patches[0].first.title!r} is newer",
        hint=hint,
    )


def sent_last(postings: Sequence[Posting], name: str) -> list[Posting]:
    """Postings of one version without those that a RESEND replaces.

    Raises UsageError for two different postings of one series without a RESEND.
    """
    resent = [posting for posting in postings if posting.is_resend]
    kept: list[Posting] = []
    for posting in postings:
        if not posting.is_resend and any(posting.is_like(other) for other in resent):
            continue
        same = next((other for other in kept if posting.is_like(other)), None)
        if posting.total and same:
            raise UsageError(
                f"{name} has two series with {posting.first.title!r} and {same.first.title!r}",
                hint="save the right one to a file of its own",
            )
        kept.append(posting)
    return kept


def _highest(postings: Sequence[Posting]) -> list[Posting]:
    last = max((posting.version for posting in postings), default=0)
    return [posting for posting in postings if posting.version == last]


def _mails(postings: Sequence[Posting], covers: Sequence[Item]) -> Iterator[Item]:
    """The mails of postings, with the cover letters of their version, size and kind."""
    kinds = {(posting.version, posting.total, posting.is_rfc) for posting in postings}
    for posting in postings:
        yield from posting.items.values()
    for cover in covers:
        about = cover.subject
        if (about.version, about.total, about.is_rfc) in kinds:
            yield cover


def _order(items: Sequence[Item], others: Sequence[Item]) -> int:
    """-1 when `items` are older than `others`, 1 when they are newer, 0 when it is unknown."""
    if _reply_to(others, items):
        return -1
    if _reply_to(items, others):
        return 1
    date, other_date = _date(items), _date(others)
    if date is None or other_date is None or date == other_date:
        return 0
    return -1 if date < other_date else 1


def _reply_to(items: Sequence[Item], others: Sequence[Item]) -> bool:
    """Whether any of `items` replies to any of `others`."""
    ids = {item.mail.message_id for item in others if item.mail.message_id}
    return any(parent in ids for item in items for parent in item.mail.replies_to)


def _date(items: Sequence[Item]) -> float | None:
    """When the first of some patches was sent; None when a patch has no date."""
    dates = [item.mail.date for item in items if item.subject.number != 0]
    known = [date for date in dates if date is not None]
    return min(known) if known and len(known) == len(dates) else None
