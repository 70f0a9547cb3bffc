# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds Kconfig keywords that `kernel/config/reader/reader.py` does not know.

A future tree may use new ones; a message with file and line is better than an error half-way. This
runs in the sandbox, with the standard library alone.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

# Documentation/kbuild/kconfig-language.rst of 7.3, and what older trees and kconfiglib know.
_KEYWORDS = """
    bool choice comment config def_bool def_tristate default depends endchoice endif endmenu
    gsource help hex if imply int mainmenu menu menuconfig modules option optional osource
    prompt range rsource select source string transitional tristate visible ---help---
"""
KEYWORDS = frozenset(_KEYWORDS.split())
OPTIONS = frozenset(("env", "defconfig_list", "modules", "allnoconfig_y"))
_WORD = re.compile(r"[ \t]*([A-Za-z_-][\w-]*)[ \t]*(.*)")
_SOURCE = re.compile(r"""[ \t]*source[ \t]+["']?([^"'\s#]+)""")


def scan_keywords(srctree: Path, env: Mapping[str, str]) -> list[dict[str, str | int]]:
    """Return each keyword in the tree's Kconfig files that `Tree` does not know, and its location.

    Files are found by following `source` from the top Kconfig; missing ones are skipped.
    """
    unknown: list[dict[str, str | int]] = []
    seen: set[str] = set()
    todo = deque(["Kconfig"])
    while todo:
        name = todo.popleft()
        if name in seen or not (srctree / name).is_file():
            continue
        seen.add(name)
        for number, line in _statements((srctree / name).read_text("utf-8", "replace")):
            if source := _SOURCE.match(line):
                todo.append(re.sub(r"\$\((\w+)\)", lambda m: env.get(m[1], ""), source[1]))
            elif word := _unknown_keyword(line):
                unknown.append({"keyword": word, "file": name, "line": number})
    return unknown


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of each line that is neither help text nor a continuation."""
    help_indent: int | None = None  # None: not in a help text; -1: before its first line
    continued = False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.expandtabs()
        indent = len(line) - len(line.lstrip())
        if help_indent is not None:
            if not line.strip():
                continue
            if help_indent < 0:
                help_indent = indent or sys.maxsize  # an empty help text ends at once
            if indent >= help_indent:
                continue
            help_indent = None
        if not continued:
            yield number, raw
            help_indent = -1 if line.strip(" -") == "help" else None
        continued = raw.endswith("\\")


def _unknown_keyword(line: str) -> str:
    match = _WORD.match(line)
    if match is None or re.match(r"[:+]?=", match[2]):  # blank, comment, macro; assignment
        return ""
    word, rest = match.groups()
    option = re.match(r"\w*", rest)
    if word == "option" and option and option[0] not in OPTIONS:
        return f"option {option[0]}"
    return "" if word in KEYWORDS else word
