# SPDX-License-Identifier: GPL-2.0-or-later
"""The mails and texts of a file as items: each with its diff and its parsed subject.

A mail with several attached patches makes several items, git's log one per commit. A damaged diff
is recorded as a problem, and raised only if the item turns out to belong to the series.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources import gitlog, subject, unified
from blockyard.kernel.sources.mail import Mail
from blockyard.kernel.sources.subject import Subject
from blockyard.kernel.sources.unified import AS_SENT, Scan

_TRAILER = re.compile(
    rb"^(base-commit|change-id|prerequisite-[a-z-]{1,40}|[a-z][a-z0-9]{0,20}(?:-[a-z0-9]{1,20}){0,3}"
    rb"-(?:id|commit|tree|branch)): (\S[^\n]{0,200})$",
    re.MULTILINE,
)


@dataclass(eq=False)
class Item:
    """A mail, one of several patches in a mail, or a text that is not a mail."""

    name: str  # of the patch, for messages
    mail: Mail
    subject: Subject
    scan: Scan
    text: bytes = b""  # the whole text
    strip: int | None = None  # see `Patch.strip`
    problem: UsageError | None = None  # why its diff cannot be applied

    @property
    def is_patch(self) -> bool:
        """Whether it has a diff and is not a cover letter."""
        return bool(self.scan.files or self.problem) and self.subject.number != 0

    @cached_property
    def change_id(self) -> str:
        """The change-id, which all versions of a series share; empty if it has none."""
        return facts_of([self]).change_id

    @property
    def is_reply(self) -> bool:
        """Whether the subject of it, or of the mail that it is attached to, begins with "Re:"."""
        outer = self.mail.inside
        return self.subject.is_reply or (
            outer is not None and subject.parse(outer.subject).is_reply
        )

    @property
    def title(self) -> str:
        """Its subject, or its name without one, for lists."""
        return self.mail.subject or self.name


def items_of(mails: Sequence[Mail], name: str) -> list[Item]:
    """The items in the mails of the file `name`."""
    items = [item for mail in mails for item in _items(mail, name)]
    if sum(item.is_patch for item in items) == 1:  # the file is the patch
        return [replace(item, name=name) if item.is_patch else item for item in items]
    return items


def _commits(mail: Mail) -> list[Item]:
    """An item for each commit in a text that is git's log; empty for any other text."""
    if mail.is_mail or not mail.texts:
        return []
    items = []
    for commit in gitlog.commits(mail.texts[0].readings[0]):
        mail_of_commit = replace(mail, author=commit.author)
        item = Item(commit.title, mail_of_commit, Subject(commit.title), commit.scan)
        if commit.scan.problem:
            what = f"cannot read commit {commit.title!r}: {commit.scan.problem.what}"
            item.problem = UsageError(what, hint=commit.scan.problem.hint)
        items.append(item)
    return items


def _items(mail: Mail, name: str) -> list[Item]:
    if commits := _commits(mail):
        return commits
    about = subject.parse(mail.subject) if mail.is_mail else Subject(name)
    title = mail.subject or name
    whole = b"\n".join(text.readings[0] for text in mail.texts)
    diffs: list[tuple[str, Scan, bool]] = []  # name, diff, whether it is attached
    problems: list[tuple[bool, UsageError]] = []  # whether it is attached, error
    interdiffs = 0
    for text in mail.texts:
        scans = [unified.scan(reading) for reading in text.readings]
        scan = next((good for good in scans if good.files and not good.problem), scans[0])
        interdiffs += scan.interdiffs
        if scan.problem:
            where = text.name or title
            what = f"cannot read the patch {where}, line {scan.problem.line}: {scan.problem.what}"
            problems.append((text.attached, UsageError(what, hint=scan.problem.hint)))
        elif scan.files and scan.text not in [diff.text for _, diff, _ in diffs]:
            diffs.append((text.name, scan, text.attached))
        elif scan.interdiffs and about.number != 0:
            what = f"cannot read the patch {title}: its only diff is an interdiff"
            problems.append((text.attached, UsageError(what, hint=AS_SENT)))
    if about.number == 0:  # any diff in a cover letter is an interdiff
        return [Item(title, mail, about, Scan(interdiffs=len(diffs) + interdiffs), whole)]
    kinds = {attached for _, _, attached in diffs}
    # a damaged diff in the text does not matter if the patch is attached as well
    if bad := [problem for attached, problem in problems if attached or kinds != {True}]:
        return [Item(title, mail, about, Scan(), whole, problem=bad[0])]
    if len(kinds) > 1:
        what = f"{title}: the mail has a diff in its text and another one attached"
        problem = UsageError(what, hint="save the right one to a file of its own")
        return [Item(title, mail, about, Scan(), whole, problem=problem)]
    if len(diffs) < 2:
        return [Item(title, mail, about, diffs[0][1] if diffs else Scan(), whole)]
    return [
        Item(f"{title}: {file}", mail, _numbered(about, number, len(diffs)), scan, scan.text)
        for number, (file, scan, _) in enumerate(sorted(diffs, key=lambda d: natural(d[0])), 1)
    ]


def _numbered(about: Subject, number: int, total: int) -> Subject:
    return replace(about, number=number, total=total) if about.number is None else about


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key for names that puts 2 before 10."""
    return [
        (int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"([0-9]+)", name)
    ]


@dataclass(frozen=True)
class Facts:
    """Trailers in the mails of a series that say what it is based on; see `Series`."""

    base_commit: str
    change_id: str
    prerequisites: tuple[str, ...]
    trailers: tuple[tuple[str, str], ...]


def facts_of(items: Sequence[Item]) -> Facts:
    """The trailers such as ``base-commit:``; of several with one name the first counts."""
    known: dict[str, str] = {}
    prerequisites: dict[str, None] = {}
    trailers: dict[tuple[str, str], None] = {}
    for item in items:
        for match in _TRAILER.finditer(item.text.replace(b"\r\n", b"\n")):
            name, value = (group.decode(errors="replace").strip() for group in match.groups())
            if name in ("base-commit", "change-id"):
                known.setdefault(name, value)
            elif name.startswith("prerequisite-"):
                prerequisites[f"{name}: {value}"] = None
            else:
                trailers[name, value] = None
    return Facts(
        known.get("base-commit", ""),
        known.get("change-id", ""),
        tuple(prerequisites),
        tuple(trailers),
    )
