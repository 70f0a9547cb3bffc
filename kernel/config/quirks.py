# SPDX-License-Identifier: GPL-2.0-or-later
"""What cannot be asked of every kernel: `fragments/versions.toml` and how it changes a fragment."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from blockyard.kernel import versions
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import toml
from blockyard.kernel.host.settings import PROJECT

TABLE = PROJECT / "kernel" / "fragments" / "versions.toml"


class Quirk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In a range of kernels, lines that stand in place of those for some symbols."""

    kernels: str  # the range, see kernel.versions
    reason: str
    drop: tuple[str, ...]  # symbols, without CONFIG_
    ask: tuple[str, ...] = ()  # lines of a fragment


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    difference: tuple[Quirk, ...]


def read(path: Path) -> tuple[Quirk, ...]:
    """The table in a file; raises UsageError for one that is not understood."""
    rows = toml.read(path, _Table, "the table").difference
    for row in rows:
        versions.check_range(row.kernels, str(path))
    return rows


@cache
def _table() -> tuple[Quirk, ...]:
    return read(TABLE)


def why_not(symbol: str, version: str) -> str:
    """Why a symbol is not asked of this kernel; empty when it is."""
    for row in _table():
        if symbol in row.drop and versions.within(version, row.kernels):
            return row.reason
    return ""


def adapted(fragment: Fragment, version: str) -> Fragment:
    """The fragment as this kernel can be asked for it; lines keep their numbers."""
    lines = fragment.text.splitlines()
    for row in _table():
        if versions.within(version, row.kernels):
            dropped = [number for number, line in enumerate(lines) if _asks(line, row.drop)]
            for number in dropped:
                lines[number] = ""
            lines += row.ask if dropped else ()
    return Fragment(fragment.name, "".join(f"{line}\n" for line in lines))


def _asks(line: str, symbols: tuple[str, ...]) -> bool:
    match = re.match(r"CONFIG_(\w+)=", line)
    return match is not None and match[1] in symbols
