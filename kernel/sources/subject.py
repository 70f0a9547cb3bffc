# SPDX-License-Identifier: GPL-2.0-or-later
"""Parses mail subjects: "[RFC PATCH net-next v3 02/10] title", "Re: [PATCH 3/3 v2] title"."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANSWER = re.compile(
    r"(?:re|aw|antw|sv|vs|odp|res|fwd?|wg|tr|rv|回复|答复|转发)\s*(?:\[\d+\])?\s*[:：]\s*", re.I
)
_TAG = re.compile(r"\[([^][]{0,200})\]\s*")
_VERSION = re.compile(r"(?:rfc|patch|resend)?-?v(\d{1,3})(?:\.\d{1,3})?", re.I)
_NUMBER = re.compile(r"(\d{1,200})/(\d{1,200})")
_RFC = re.compile(r"(?:patch[-/])?rfc(?:[-/]?patch(?:es)?)?(?:-?v\d{1,3}(?:\.\d{1,3})?)?", re.I)
_RESEND = re.compile(r"(?:patch-)?(?:re-?send|re-?sent|repost)(?:-?v\d{1,3}(?:\.\d{1,3})?)?", re.I)
_PATCH = re.compile(r"(?:rfc|patch|rfc-?patch|resend)(?:es)?(?:-?v\d{1,3}(?:\.\d{1,3})?)?", re.I)


@dataclass(frozen=True)
class Subject:
    """A parsed subject."""

    title: str
    is_patch: bool = False  # it has a tag such as [PATCH], [RFC] or [2/3]
    version: int = 1
    number: int | None = None  # 0: a cover letter
    total: int = 0
    is_reply: bool = False  # begins with "Re:" in some language, or is forwarded
    is_rfc: bool = False
    is_resend: bool = False


def parse(text: str) -> Subject:
    """Parses a subject; text without tags is a title."""
    rest, is_reply, is_patch = text.strip(), False, False
    version, number, total = 1, None, 0
    is_rfc, is_resend = False, False
    while True:
        if not is_patch and (match := _ANSWER.match(rest)):
            is_reply = True
        elif match := _TAG.match(rest):
            for word in re.split(r"[\s,]+", match[1]):
                if numbered := _NUMBER.fullmatch(word):
                    number, total, is_patch = int(numbered[1]), int(numbered[2]), True
                    continue
                if versioned := _VERSION.fullmatch(word):
                    version = int(versioned[1])
                is_rfc = is_rfc or bool(_RFC.fullmatch(word))
                is_resend = is_resend or bool(_RESEND.fullmatch(word))
                is_patch = is_patch or bool(_PATCH.fullmatch(word))
        else:
            return Subject(rest, is_patch, version, number, total, is_reply, is_rfc, is_resend)
        rest = rest[match.end() :]
