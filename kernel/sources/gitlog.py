# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses the output of `git log -p` and `git show`: commits with diffs, in the order to apply them.

`git log` prints the newest commit first. The order is detected from the blob ids in `index` lines
(the new blob of a commit is the old one of the next that changes the file), else from the dates.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import mktime_tz, parsedate_tz

from blockyard.kernel.sources import unified
from blockyard.kernel.sources.unified import Scan

_COMMIT = re.compile(rb"^commit [0-9a-f]{40}(?:[0-9a-f]{24})?(?: \([^\n]{0,500}\))?\n", re.M)
_AUTHOR = re.compile(rb"^Author: +([^\n<]{1,200}?) *(?:<|$)", re.MULTILINE)
_DATE = re.compile(rb"^(?:Commit)?Date: +([^\n]{1,60})$", re.MULTILINE)
_TITLE = re.compile(rb"^    (\S[^\n]{0,500})$", re.MULTILINE)


@dataclass(frozen=True)
class Commit:
    """A commit and its changes."""

    title: str
    author: str
    time: int  # seconds since 1970; 0 when the date is missing or in an unknown format
    text: bytes
    scan: Scan


def commits(text: bytes) -> list[Commit]:
    """The commits in the order to apply them; empty if the text is not git's log."""
    text = text.lstrip(b"\n")
    starts = [match.start() for match in _COMMIT.finditer(text)]
    if not starts or starts[0]:
        return []
    ends = [*starts[1:], len(text)]
    parsed = [_commit(text[start:end]) for start, end in zip(starts, ends, strict=True)]
    return parsed[::-1] if _newest_first(parsed) else parsed


def _commit(text: bytes) -> Commit:
    head = text[:65536].partition(b"\ndiff --git ")[0]
    date = parsedate_tz(_first(_DATE, head))
    return Commit(
        _first(_TITLE, head) or text[:19].decode(),
        _first(_AUTHOR, head),
        int(mktime_tz(date)) if date else 0,
        text,
        unified.scan(text),
    )


def _first(pattern: re.Pattern[bytes], text: bytes) -> str:
    match = pattern.search(text)
    return match[1].decode(errors="replace") if match else ""


def _newest_first(listed: Sequence[Commit]) -> bool:
    newer: dict[str, bytes] = {}  # file → id of its new blob in the last commit that changes it
    older: dict[str, bytes] = {}  # file → id of its old blob there
    for commit in listed:
        for file in commit.scan.files:
            if file.new in newer and file.before and newer[file.new] == file.before:
                return False
            if file.new in older and file.after and older[file.new] == file.after:
                return True
            newer[file.new], older[file.new] = file.after, file.before
    times = [commit.time for commit in listed]
    return not (times == sorted(times) and times[0] < times[-1])
