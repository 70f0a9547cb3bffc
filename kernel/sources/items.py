# SPDX-License-Identifier: GPL-2.0-or-later
"""The mails and texts of a file, each with the diff that it has and what its subject says.

A mail with several attached patches is several items; git's log is one per commit. A diff that is
cut or changed is an error if it turns out to be of the series, and kept until then.
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
    """A mail, or one of several patches in it, or a text that is no mail."""

    name: str  # of the patch, for people
    mail: Mail
    subject: Subject
    scan: Scan
    text: bytes = b""  # all of it
    strip: int | None = None
    problem: UsageError | None = None  # why its diff cannot be taken

    @property
    def is_patch(self) -> bool:
        """Whether it has a diff and is no cover letter."""
        return bool(self.scan.files or self.problem) and self.subject.number != 0

    @cached_property
    def change_id(self) -> str:
        """What names its series in all versions; empty when it says nothing."""
        return facts_of([self]).change_id

    @property
    def answers(self) -> bool:
        """Whether it, or the mail that it is attached to, says "Re:"."""
        outer = self.mail.inside
        return self.subject.is_answer or (
            outer is not None and subject.parse(outer.subject).is_answer
        )

    @property
    def title(self) -> str:
        """How a list names it."""
        return self.mail.subject or self.name


def items_of(mails: Sequence[Mail], name: str) -> list[Item]:
    """The mails and texts of one file, with their diffs."""
    found = [item for mail in mails for item in _items(mail, name)]
    if sum(item.is_patch for item in found) == 1:  # the file is the patch
        return [replace(one, name=name) if one.is_patch else one for one in found]
    return found


def _commits(mail: Mail) -> list[Item]:
    """The commits in a text, when it is git's log."""
    found = gitlog.commits(mail.texts[0].readings[0]) if mail.texts and not mail.is_mail else []
    items = []
    for one in found:
        item = Item(one.title, replace(mail, author=one.author), Subject(one.title), one.scan)
        if one.scan.problem:
            what = f"cannot read commit {one.title!r}: {one.scan.problem.what}"
            item.problem = UsageError(what, hint=one.scan.problem.hint)
        items.append(item)
    return items


def _items(mail: Mail, name: str) -> list[Item]:
    if commits := _commits(mail):
        return commits
    about = subject.parse(mail.subject) if mail.is_mail else Subject(name)
    called = mail.subject or name
    whole = b"\n".join(text.readings[0] for text in mail.texts)
    found: list[tuple[str, Scan, bool]] = []
    problems: list[tuple[bool, UsageError]] = []  # whether it is attached
    interdiffs = 0
    for text in mail.texts:
        scans = [unified.scan(reading) for reading in text.readings]
        scan = next((one for one in scans if one.files and not one.problem), scans[0])
        interdiffs += scan.interdiffs
        if scan.problem:
            where = text.name or called
            what = f"cannot read the patch {where}, line {scan.problem.line}: {scan.problem.what}"
            problems.append((text.attached, UsageError(what, hint=scan.problem.hint)))
        elif scan.files and scan.text not in [one.text for _, one, _ in found]:
            found.append((text.name, scan, text.attached))
        elif scan.interdiffs and about.number != 0:
            what = f"cannot read the patch {called}: its only diff is one between two versions"
            problems.append((text.attached, UsageError(what, hint=AS_SENT)))
    if about.number == 0:  # whatever diff it has is one between two versions
        return [Item(called, mail, about, Scan(interdiffs=len(found) + interdiffs), whole)]
    kinds = {attached for _, _, attached in found}
    # a mail program damages the text, and people attach the patch for that reason
    if bad := [problem for attached, problem in problems if attached or kinds != {True}]:
        return [Item(called, mail, about, Scan(), whole, problem=bad[0])]
    if len(kinds) > 1:
        what = f"{called}: there is a diff in the mail's text and another one attached"
        problem = UsageError(what, hint="save the one that is meant to a file")
        return [Item(called, mail, about, Scan(), whole, problem=problem)]
    if len(found) < 2:
        return [Item(called, mail, about, found[0][1] if found else Scan(), whole)]
    return [
        Item(f"{called}: {file}", mail, _numbered(about, at, len(found)), scan, scan.text)
        for at, (file, scan, _) in enumerate(sorted(found, key=lambda one: natural(one[0])), 1)
    ]


def _numbered(about: Subject, at: int, count: int) -> Subject:
    return replace(about, number=at, total=count) if about.number is None else about


def natural(name: str) -> list[tuple[int, str]]:
    """A key to sort names by, so that 2 comes before 10."""
    return [
        (int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"([0-9]+)", name)
    ]


@dataclass(frozen=True)
class Facts:
    """What the mails of a series say of where it belongs."""

    base_commit: str
    change_id: str
    prerequisites: tuple[str, ...]
    trailers: tuple[tuple[str, str], ...]


def facts_of(items: Sequence[Item]) -> Facts:
    """What lines such as ``base-commit:`` say; the first one counts."""
    known: dict[str, str] = {}
    prerequisites: dict[str, None] = {}
    trailers: dict[tuple[str, str], None] = {}
    for item in items:
        for found in _TRAILER.finditer(item.text.replace(b"\r\n", b"\n")):
            name, value = (one.decode(errors="replace").strip() for one in found.groups())
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
