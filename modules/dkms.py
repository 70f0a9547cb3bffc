# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads dkms.conf without running it.

DKMS sources this file in a shell. Here only assignments of plain or quoted words are evaluated, and
references to variables that the file assigned before. All other shell code is ignored.
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
    """The values of a dkms.conf that matter for a build."""

    name: str = ""  # PACKAGE_NAME
    modules: tuple[str, ...] = ()  # BUILT_MODULE_NAME[n]
    # BUILT_MODULE_LOCATION[0], a subfolder; empty for the folder itself, and for locations that
    # are ignored because they are outside or unknown: "../x", "/x", an unassigned "$x"
    location: str = ""
    symbols: tuple[tuple[str, str], ...] = ()  # (CONFIG_X, y or m) from the make command


def read(folder: Path) -> Dkms | None:
    """The dkms.conf of a folder; None when there is none. Raises UsageError if it is > 1 MiB."""
    if not untrusted.is_file(folder, FILE):
        return None
    try:
        return parse(untrusted.read_text(folder, FILE, untrusted.MAKEFILE_BYTES))
    except Failure as error:
        raise UsageError(f"{folder}: {error.what}") from None


def parse(text: str) -> Dkms:
    """The values in the text of a dkms.conf."""
    values: dict[tuple[str, int], str] = {}

    def known(match: re.Match[str]) -> str:
        return values.get((match[1], int(match[2] or 0)), match[0])

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
