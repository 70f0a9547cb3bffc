# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that were sent together, and which of several such postings is the newest.

Versions count for patches and for requests for comments apart: [RFC v2] comes before [PATCH]. So
the two are compared by who answers whom, then by date; where neither says it, the user has to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources.items import Item


@dataclass(eq=False)
class Posting:
    """The patches of one version of a series, as they were sent together."""

    version: int
    total: int
    items: dict[int, Item] = field(default_factory=dict)  # by number

    @property
    def first(self) -> Item:
        """The patch with the lowest number."""
        return self.items[min(self.items)]

    @property
    def is_rfc(self) -> bool:
        """Whether all of it is a request for comments."""
        return all(item.subject.is_rfc for item in self.items.values())

    @property
    def is_resend(self) -> bool:
        """Whether all of it was sent again."""
        return all(item.subject.is_resend for item in self.items.values())

    def is_like(self, other: Posting) -> bool:
        """Whether both have a patch of one number and title."""
        titles = {(at, item.subject.title.casefold()) for at, item in other.items.items()}
        return self.total == other.total and any(
            (at, item.subject.title.casefold()) in titles for at, item in self.items.items()
        )

    def is_in(self, other: Posting) -> bool:
        """Whether the other one has all of its patches, unchanged."""
        return all(
            at in other.items and other.items[at].scan.text == item.scan.text
            for at, item in self.items.items()
        )


class Split:
    """By which tags the patches of one version are several postings.

    A number that is there both with RFC and without makes two of it; if only some patches have the
    tag, it says nothing.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        seen: dict[tuple[int, int, int, str], set[bool]] = {}
        self.split: set[tuple[int, int, str]] = set()
        for item in items:
            about = item.subject
            if not about.number:
                continue
            for tag, has in (("rfc", about.is_rfc), ("resend", about.is_resend)):
                both = seen.setdefault((about.version, about.total, about.number, tag), set())
                both.add(has)
                if len(both) > 1:
                    self.split.add((about.version, about.total, tag))

    def key(self, item: Item) -> tuple[int, int, bool, bool]:
        """What patches of one posting have in common."""
        about = item.subject
        version, total = about.version, about.total
        rfc = about.is_rfc and (version, total, "rfc") in self.split
        return version, total, rfc, about.is_resend and (version, total, "resend") in self.split


def without_copies(postings: Sequence[Posting]) -> tuple[list[Posting], list[Item]]:
    """The postings that are no part of another one, and the patches of those that are."""
    having: dict[tuple[int, int, int, bytes], list[Posting]] = {}
    for posting in postings:
        for at, item in posting.items.items():
            key = (posting.version, posting.total, at, item.scan.text)
            having.setdefault(key, []).append(posting)
    place = {id(posting): at for at, posting in enumerate(postings)}
    kept, copies = [], []
    for posting in postings:
        key = (posting.version, posting.total, min(posting.items), posting.first.scan.text)
        if posting.total and any(
            posting.is_in(other)
            and (len(other.items) > len(posting.items) or place[id(other)] < place[id(posting)])
            for other in having[key]
            if other is not posting
        ):
            copies += list(posting.items.values())
        else:
            kept.append(posting)
    return kept, copies


def of_version(group: Sequence[Posting], version: int) -> list[Posting]:
    """The postings of a version; of patches and requests for comments the patches."""
    there = [one for one in group if one.version == version]
    return [one for one in there if not one.is_rfc] or there


def newest(group: Sequence[Posting], covers: Sequence[Item], name: str) -> list[Posting]:
    """The newest postings of a series. Raises UsageError where it is not clear which they are."""
    requests = _highest([one for one in group if one.is_rfc])
    patches = _highest([one for one in group if not one.is_rfc])
    if not requests or not patches:
        return requests or patches
    request, patch = requests[0].version, patches[0].version
    order = _order(list(_mails(requests, covers)), list(_mails(patches, covers)))
    if order < 0 or (order == 0 and request < patch):
        return patches
    if order > 0 and request > patch:
        return requests
    ways = f"--series-version {patch} takes the patches"
    ways += (
        "; for the RFC save it to a file of its own"
        if patch == request
        else f", --series-version {request} the RFC"
    )
    raise UsageError(
        f"{name}: it is not clear which of {requests[0].first.title!r} and "
        f"{patches[0].first.title!r} is newer",
        hint=ways,
    )


def sent_last(postings: Sequence[Posting], name: str) -> list[Posting]:
    """Postings of one version without those that were sent again.

    Raises UsageError for two that differ and of which none says that it was sent again.
    """
    resent = [one for one in postings if one.is_resend]
    found: list[Posting] = []
    for one in postings:
        if not one.is_resend and any(one.is_like(other) for other in resent):
            continue
        if one.total and (twice := next((two for two in found if one.is_like(two)), None)):
            raise UsageError(
                f"{name} has two series with {one.first.title!r} and {twice.first.title!r}",
                hint="save the series that is meant to a file of its own",
            )
        found.append(one)
    return found


def _highest(postings: Sequence[Posting]) -> list[Posting]:
    last = max((one.version for one in postings), default=0)
    return [one for one in postings if one.version == last]


def _mails(postings: Sequence[Posting], covers: Sequence[Item]) -> Iterator[Item]:
    """The mails of postings, with cover letters that can only be theirs."""
    kinds = {(one.version, one.total, one.is_rfc) for one in postings}
    for posting in postings:
        yield from posting.items.values()
    for cover in covers:
        about = cover.subject
        if (about.version, about.total, about.is_rfc) in kinds:
            yield cover


def _order(one: Sequence[Item], other: Sequence[Item]) -> int:
    """-1 when the mails of one are older, 1 when they are newer, 0 when it cannot be said."""
    if _answers(other, one):
        return -1
    if _answers(one, other):
        return 1
    first, second = _date(one), _date(other)
    if first is None or second is None or first == second:
        return 0
    return -1 if first < second else 1


def _answers(one: Sequence[Item], other: Sequence[Item]) -> bool:
    ids = {item.mail.message_id for item in other if item.mail.message_id}
    return any(answer in ids for item in one for answer in item.mail.answers)


def _date(items: Sequence[Item]) -> float | None:
    """When the first of some mails was sent; None when one does not say it."""
    dates = [item.mail.date for item in items if item.subject.number != 0]
    known = [date for date in dates if date is not None]
    return min(known) if known and len(known) == len(dates) else None
