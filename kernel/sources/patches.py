# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches and series of them, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True)
class Patch:
    """One patch of a series."""

    name: str  # for people: a file's name or a mail's subject
    text: bytes = field(repr=False)  # with a unified diff in it
    subject: str = ""  # without [PATCH ...]
    author: str = ""
    number: int = 0  # in its series; 0: it has none
    total: int = 0
    version: int = 0  # 0: not a mail with [PATCH], so it has none
    message_id: str = ""
    strip: int | None = None  # folders before its files' names; None: as the tree shows


@dataclass(frozen=True)
class Omitted:
    """What was there and is not applied."""

    what: str  # a subject or a file's name
    why: str
    author: str = ""


@dataclass(frozen=True)
class Series:
    """What is applied, in its order, and what is known of it."""

    name: str  # what the user called it
    patches: tuple[Patch, ...]
    omitted: tuple[Omitted, ...] = ()
    version: int = 0  # 0: it has none
    versions: tuple[int, ...] = ()  # all that are there
    base_commit: str = ""
    change_id: str = ""
    prerequisites: tuple[str, ...] = ()  # patch ids, change ids and message ids, with their kind
    trailers: tuple[tuple[str, str], ...] = ()  # others of that kind: (name, value)

    def table(self) -> list[str]:
        """A line per patch and per thing left out, for people."""
        version = (
            f", v{self.version} of {_words(self.versions)}"
            if len(self.versions) > 1
            else (f", v{self.version}" if self.version > 1 else "")
        )
        count = len(self.patches)
        lines = [f"{self.name}: {count} patch{'es' if count > 1 else ''}{version}"]
        lines += [f"  {_line(at, patch)}" for at, patch in enumerate(self.patches, start=1)]
        for one in self.omitted:
            by = f" ({one.author})" if one.author else ""
            lines.append(f"  left out: {_cut(one.what)}{by}: {one.why}")
        return lines

    def as_json(self) -> str:
        """The same for programs; the diffs are not in it."""
        data = msgspec.to_builtins(self)
        for patch in data["patches"]:
            del patch["text"]
        return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def _words(versions: tuple[int, ...]) -> str:
    return ", ".join(f"v{one}" for one in versions)


def _line(at: int, patch: Patch) -> str:
    number = f"{patch.number}/{patch.total}" if patch.number else str(at)
    by = f" ({_cut(patch.author, 40)})" if patch.author else ""
    version = f" v{patch.version}" if patch.version > 1 else ""
    return f"{number}{version} {_cut(patch.subject or patch.name)}{by}"


def _cut(text: str, length: int = 90) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
