# SPDX-License-Identifier: GPL-2.0-or-later
"""dkms.conf, read as data.

DKMS sources this file in a shell. Here it is only read: its assignments of plain or quoted words
count, with references to what it assigned before; everything else of a shell is left alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import Failure, UsageError

FILE = "dkms.conf"
_ASSIGNMENT = re.compile(r"""^[ \t]*(\w+)(?:\[(\d+)\])?=("[^"\n]*"|'[^'\n]*'|[^\s#;]*)""", re.M)
_REFERENCE = re.compile(r"\$\{?(\w+)(?:\[(\d+)\])?\}?")
_LOCATION = re.compile(r"(?!\.\.?(?:/|$))[\w.+-]+(?:/(?!\.\.?(?:/|$))[\w.+-]+)*")  # a/b
_SYMBOL = re.compile(r"\b(CONFIG_\w+)=([ym])\b")


@dataclass(frozen=True)
class Dkms:
    """What a dkms.conf says of a package."""

    name: str = ""  # PACKAGE_NAME
    modules: tuple[str, ...] = ()  # BUILT_MODULE_NAME[n]
    # BUILT_MODULE_LOCATION[0]: a folder below; empty for the folder itself, and for what leads
    # elsewhere, such as "../x", "/x" or a "$x" that the file does not assign, which is ignored
    location: str = ""
    symbols: tuple[tuple[str, str], ...] = ()  # CONFIG_X and y or m, from the make command


def read(folder: Path) -> Dkms | None:
    """The dkms.conf of a folder; None when there is none. Raises UsageError for one of > 1 MiB."""
    if not untrusted.is_file(folder, FILE):
        return None
    try:
        return parse(untrusted.read_text(folder, FILE, untrusted.MAKEFILE_BYTES))
    except Failure as error:
        raise UsageError(f"{folder}: {error.what}") from None


def parse(text: str) -> Dkms:
    """What the text of a dkms.conf says."""
    values: dict[tuple[str, int], str] = {}

    def known(found: re.Match[str]) -> str:
        return values.get((found[1], int(found[2] or 0)), found[0])

    for name, number, word in _ASSIGNMENT.findall(text.replace("\\\n", " ")[:1_000_000]):
        plain = word.strip("\"'")
        index = int(number[:4] or 0)
        values[name, index] = (
            plain if word[:1] == "'" else _REFERENCE.sub(known, plain[:4096])[:4096]
        )
    names = {index: name for (key, index), name in values.items() if key == "BUILT_MODULE_NAME"}
    package = values.get(("PACKAGE_NAME", 0), "")
    location = values.get(("BUILT_MODULE_LOCATION", 0), "").removeprefix("./").rstrip("/")
    return Dkms(
        package,
        tuple(name for _, name in sorted(names.items()) if name) or ((package,) if package else ()),
        location if _LOCATION.fullmatch(location) else "",
        tuple(dict.fromkeys(_SYMBOL.findall(values.get(("MAKE", 0), "")))),
    )
