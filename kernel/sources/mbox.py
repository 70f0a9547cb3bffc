# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the mails in an mbox (of public-inbox, `git format-patch --stdout`, `b4 am`).

The standard library's mailbox takes each line "From " for the start of a mail, also within a text.
Here such a line must end in a date and be followed by a header, and not be in an attachment.
"""

from __future__ import annotations

import bisect
import re

_LOOKED_AT = 4096  # bytes of an attachment in which its first mail must begin
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
    """Offsets of the mails of an mbox: of their line "From ", and of the line after it."""
    closings: dict[bytes, list[int]] = {}
    starts: list[tuple[int, int]] = []
    busy_until = 0  # end of the current mail's parts; a line "From " before it starts no mail
    for match in re.finditer(rb"^From ", data, re.MULTILINE):
        begin = match.start()
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
    """Offsets of closing boundary lines of multiparts, by boundary."""
    closings: dict[bytes, list[int]] = {b"": []}
    for match in _CLOSING.finditer(data):
        closings.setdefault(match[1], []).append(match.start())
    return closings


def _end_of_parts(data: bytes, begin: int, closings: dict[bytes, list[int]]) -> int:
    """The offset at which the parts of a mail end; `begin` when it has none."""
    header = _header_block(data, begin)
    boundary = _BOUNDARY.search(header)
    offsets = closings.get(boundary[1] or boundary[2], []) if boundary else []
    at = bisect.bisect(offsets, begin)
    return offsets[at] if at < len(offsets) else begin


def _header_block(data: bytes, begin: int) -> bytes:
    block = data[begin : begin + 65536]
    return re.split(rb"\r?\n\r?\n", block, maxsplit=1)[0]


def is_mail(data: bytes) -> bool:
    """Whether a text begins with the headers of a mail."""
    if not _HEADER.match(data):
        return False
    block = _header_block(data, 0)
    names = {match[0].rstrip(b": \t").lower() for match in _MAIL_HEADER.finditer(block)}
    return len(names) > 1


def holds_mails(data: bytes) -> bool:
    """Whether a text is a mail or an mbox."""
    return is_mail(data) or any(begin == 0 for begin, _ in starts(data[:_LOOKED_AT]))
