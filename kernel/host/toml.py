# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads TOML files that users wrote: manifests, topologies, known failures, settings.

A file must be a regular one of at most 1 MiB, in UTF-8 with or without a byte order mark. Its
nesting depth is checked before parsing: tomllib takes quadratic time for long dotted keys, and
raises RecursionError for deep arrays. An error names the file and, if it can be found, the line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

import msgspec

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import UsageError

T = TypeVar("T")

DEEPEST = 16  # nested arrays and tables, and parts of a dotted key; Blockyard's files need four
_BOM = "\ufeff"
# Strings and comments are one token each, so that brackets in them do not count. An unterminated
# string matches to the end, so that the scan takes linear time.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\[\s\S]|"(?!""))*(?:"""|\Z|\\\Z)'
    r"|'''(?:[^']|'(?!''))*(?:'''|\Z)"
    r'|"(?:[^"\\\n]|\\.)*"?'
    r"|'[^'\n]*'?"
    r"|#[^\n]*"
    r"|[\[\]{}.,=\n]"
)


def read(path: Path, kind: type[T], what: str, hint: str = "") -> T:
    """The contents of a TOML file as a value of `kind`.

    what: names the file's kind in errors, such as "the topology". hint: what to do about an invalid
    file. Raises UsageError, with the line of the mistake.
    """
    data = untrusted.read_input(path, what, untrusted.TOML_BYTES)
    return decode(data, kind, str(path), hint)


def decode(data: bytes, kind: type[T], name: str, hint: str = "") -> T:
    """Like `read`, from the bytes of a file; name: the file's name for errors."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}: line {line} is not UTF-8 text", hint=hint) from None
    text = text.removeprefix(_BOM)
    if line := _too_deep(text):
        raise UsageError(f"{name}: line {line} nests more than {DEEPEST} levels deep", hint=hint)
    try:
        return msgspec.toml.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}{_line(text, str(error))}", hint=hint) from None
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError) as error:
        # ValueError: a number with more digits than Python accepts
        raise UsageError(f"{name}: {error}", hint=hint) from None


def _too_deep(text: str) -> int:
    """The line at which a text is nested too deep; 0 when it is not."""
    depth = dots = 0
    for match in _TOKEN.finditer(text):
        token = match[0]
        depth += (token in ("[", "{")) - (token in ("]", "}"))
        dots = dots + 1 if token == "." else dots
        if max(depth, dots) > DEEPEST:
            return text.count("\n", 0, match.start()) + 1
        if token in ("\n", "=", ",", "{", "["):
            dots = 0
    return 0


def _line(text: str, error: str) -> str:
    """`` (line N)`` for the field that msgspec's error names, if exactly one line can define it."""
    field = re.search(r"`\$(?:\.\w+|\[[.\d]*\])*\.(\w+)(?:\[[.\d]*\])*`\Z", error) or re.search(
        r"unknown field `(\w+)`", error
    )
    if field is None:
        return ""
    key = re.compile(rf"[\s\[]*(?:[\w-]+\.)*{field[1]}\s*[\]=]")
    lines = [number for number, line in enumerate(text.split("\n"), 1) if key.match(line)]
    return f" (line {lines[0]})" if len(lines) == 1 else ""
