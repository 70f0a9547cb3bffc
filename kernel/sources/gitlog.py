# SPDX-License-Identifier: GPL-2.0-or-later
"""The output of `git log -p` and `git show`: commits with their diffs, in the order to apply them.

`git log` has the newest first. Which order a text has shows in the ids of contents that git writes
(what one commit leaves of a file, the next one begins with), else in the dates.
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
    time: int  # seconds since 1970; 0 when it is not stated in a form that is known
    text: bytes
    scan: Scan


def commits(text: bytes) -> list[Commit]:
    """The commits in the order to apply them; none for a text of another kind."""
    text = text.lstrip(b"\n")
    starts = [found.start() for found in _COMMIT.finditer(text)]
    if not starts or starts[0]:
        return []
    ends = [*starts[1:], len(text)]
    found = [_commit(text[a:b]) for a, b in zip(starts, ends, strict=True)]
    return found[::-1] if _newest_first(found) else found


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
    found = pattern.search(text)
    return found[1].decode(errors="replace") if found else ""


def _newest_first(listed: Sequence[Commit]) -> bool:
    left: dict[str, bytes] = {}  # file → the id of what the commits before leave, or begin with
    begun: dict[str, bytes] = {}
    for commit in listed:
        for file in commit.scan.files:
            if file.new in left and file.before and left[file.new] == file.before:
                return False
            if file.new in begun and file.after and begun[file.new] == file.after:
                return True
            left[file.new], begun[file.new] = file.after, file.before
    times = [commit.time for commit in listed]
    return not (times == sorted(times) and times[0] < times[-1])
