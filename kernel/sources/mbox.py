# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the mails of an mbox begin (public-inbox, `git format-patch --stdout`, `b4 am`).

The standard library's mailbox begins one at each line "From ", also in the middle of a text. Here
such a line has to end in a date, a header has to follow, and it may not stand in an attachment.
"""

from __future__ import annotations

import bisect
import re

_LOOKED_AT = 4096  # bytes, for the first mail of an attachment
_SEPARATOR = re.compile(
    rb"From (?:\S+ +)?\S{0,60}.{0,40}?\d\d:\d\d(?::\d\d)?.{0,20}\d{4}(?: [+-]\d{4})?\s*"
)
_HEADER = re.compile(rb"[!-9;-~]{1,76}:")
_MAIL_HEADER = re.compile(rb"^(?:from|subject|date|message-id)[ \t]*:", re.I | re.M)
_CLOSING = re.compile(rb"^--([^\n]{1,200}?)--[ \t]{0,20}\r?$", re.MULTILINE)
_BOUNDARY = re.compile(
    rb'\bboundary[ \t]*=[ \t]*(?:"([^"\n]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE
)


def starts(data: bytes) -> list[tuple[int, int]]:
    """Where mails of an mbox begin: their line "From ", and the line behind it."""
    closings: dict[bytes, list[int]] = {}
    starts: list[tuple[int, int]] = []
    busy_until = 0  # a line "From " in an attachment begins no mail
    for found in re.finditer(rb"^From ", data, re.MULTILINE):
        begin = found.start()
        end = data.find(b"\n", begin, begin + 200)
        if end < 0 or begin < busy_until or not _SEPARATOR.fullmatch(data[begin:end]):
            continue
        if not _HEADER.match(data[end + 1 : end + 80]):
            continue
        starts.append((begin, end + 1))
        if not closings:
            closings = _closings(data)
        busy_until = _end_of_parts(data, end + 1, closings)
    return starts


def _closings(data: bytes) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = {b"": []}
    for one in _CLOSING.finditer(data):
        found.setdefault(one[1], []).append(one.start())
    return found


def _end_of_parts(data: bytes, begin: int, closings: dict[bytes, list[int]]) -> int:
    """Where the parts of a mail end; `begin` when it has none."""
    header = _header_block(data, begin)
    boundary = _BOUNDARY.search(header)
    places = closings.get(boundary[1] or boundary[2], []) if boundary else []
    at = bisect.bisect(places, begin)
    return places[at] if at < len(places) else begin


def _header_block(data: bytes, begin: int) -> bytes:
    block = data[begin : begin + 65536]
    return re.split(rb"\r?\n\r?\n", block, maxsplit=1)[0]


def is_mail(data: bytes) -> bool:
    """Whether a text begins with the headers of a mail."""
    if not _HEADER.match(data):
        return False
    block = _header_block(data, 0)
    names = {found[0].rstrip(b": \t").lower() for found in _MAIL_HEADER.finditer(block)}
    return len(names) > 1


def holds_mails(data: bytes) -> bool:
    """Whether a text is a mail or an mbox."""
    return is_mail(data) or any(begin == 0 for begin, _ in starts(data[:_LOOKED_AT]))
