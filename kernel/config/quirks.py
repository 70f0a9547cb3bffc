# SPDX-License-Identifier: GPL-2.0-or-later
"""Adapts fragments to a kernel's version, by the table in `fragments/versions.toml`."""

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
    """A range of kernels in which fragment lines are dropped or replaced."""

    kernels: str  # the range, see kernel.versions
    reason: str
    drop: tuple[str, ...]  # symbols, without CONFIG_
    ask: tuple[str, ...] = ()  # lines of a fragment


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    difference: tuple[Quirk, ...]


def read(path: Path) -> tuple[Quirk, ...]:
    """The rows of a table file; raises UsageError for an invalid file."""
    rows = toml.read(path, _Table, "the table").difference
    for row in rows:
        versions.check_range(row.kernels, str(path))
    return rows


@cache
def _table() -> tuple[Quirk, ...]:
    return read(TABLE)


def why_not(symbol: str, version: str) -> str:
    """Why a symbol is not requested for this kernel's version; empty if it is."""
    for row in _table():
        if symbol in row.drop and versions.within(version, row.kernels):
            return row.reason
    return ""


def adapted(fragment: Fragment, version: str) -> Fragment:
    """The fragment for a kernel's version; the lines that stay keep their numbers."""
    lines = fragment.text.splitlines()
    for row in _table():
        if versions.within(version, row.kernels):
            dropped = [number for number, line in enumerate(lines) if _sets(line, row.drop)]
            for number in dropped:
                lines[number] = ""
            lines += row.ask if dropped else ()
    return Fragment(fragment.name, "".join(f"{line}\n" for line in lines))


def _sets(line: str, symbols: tuple[str, ...]) -> bool:
    match = re.match(r"CONFIG_(\w+)=", line)
    return match is not None and match[1] in symbols
