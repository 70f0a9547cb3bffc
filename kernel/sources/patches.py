# SPDX-License-Identifier: GPL-2.0-or-later
"""A patch and a patch series, as values."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec


@dataclass(frozen=True)
class Patch:
    """A patch of a series."""

    name: str  # a file's name or a mail's subject, for messages
    text: bytes = field(repr=False)  # its unified diff
    subject: str = ""  # without [PATCH ...]
    author: str = ""
    number: int = 0  # in its series; 0: not numbered
    total: int = 0
    version: int = 0  # 0: not a mail with [PATCH]
    message_id: str = ""
    strip: int | None = None  # folders to strip from file names; None: detect it from the tree


@dataclass(frozen=True)
class Omitted:
    """A mail or file that is not applied."""

    what: str  # its subject or file name
    why: str
    author: str = ""


@dataclass(frozen=True)
class Series:
    """A series: the patches to apply, in order, and its metadata."""

    name: str  # as the user typed it
    patches: tuple[Patch, ...]
    omitted: tuple[Omitted, ...] = ()
    version: int = 0  # 0: not versioned
    versions: tuple[int, ...] = ()  # all versions in the input
    base_commit: str = ""
    change_id: str = ""
    prerequisites: tuple[str, ...] = ()  # prerequisite-* trailers, such as "patch-id: 0123"
    trailers: tuple[tuple[str, str], ...] = ()  # other trailers with ids: (name, value)

    def table(self) -> list[str]:
        """A heading, and a line for each patch and each omitted mail or file."""
        version = (
            f", v{self.version} of {_words(self.versions)}"
            if len(self.versions) > 1
            else (f", v{self.version}" if self.version > 1 else "")
        )
        count = len(self.patches)
        lines = [f"{self.name}: {count} patch{'es' if count > 1 else ''}{version}"]
        lines += [f"  {_line(at, patch)}" for at, patch in enumerate(self.patches, start=1)]
        for omitted in self.omitted:
            by = f" ({omitted.author})" if omitted.author else ""
            lines.append(f"  left out: {_cut(omitted.what)}{by}: {omitted.why}")
        return lines

    def as_json(self) -> str:
        """The series as JSON, without the diffs."""
        data = msgspec.to_builtins(self)
        for patch in data["patches"]:
            del patch["text"]
        return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def _words(versions: tuple[int, ...]) -> str:
    return ", ".join(f"v{version}" for version in versions)


def _line(at: int, patch: Patch) -> str:
    number = f"{patch.number}/{patch.total}" if patch.number else str(at)
    by = f" ({_cut(patch.author, 40)})" if patch.author else ""
    version = f" v{patch.version}" if patch.version > 1 else ""
    return f"{number}{version} {_cut(patch.subject or patch.name)}{by}"


def _cut(text: str, length: int = 90) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
