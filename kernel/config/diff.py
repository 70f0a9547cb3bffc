# SPDX-License-Identifier: GPL-2.0-or-later
"""The differences between two kernel configurations, as values.

An absent symbol and one that is "not set" are both off: the kernel is the same whether its tree
lacks a symbol or has it switched off.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

OFF = "n"
# Tools whose minimum versions are compared, as a tree's scripts/min-tool-version.sh calls them.
TOOLS = ("llvm", "gcc", "rustc", "bindgen", "binutils")


class Pair(msgspec.Struct, frozen=True):
    """The values of both sides."""

    a: str
    b: str


class Differences(msgspec.Struct, frozen=True):
    """Differences of a second configuration from a first, by symbol without CONFIG_."""

    added: dict[str, str]  # off in the first; value in the second
    removed: dict[str, str]  # off in the second; value in the first
    changed: dict[str, Pair]  # on in both


def compare(a: Mapping[str, str], b: Mapping[str, str]) -> Differences:
    """Return how `b` differs from `a`; both map a symbol to its value as in ``.config``."""
    added, removed, changed = {}, {}, {}
    for symbol in sorted(a.keys() | b.keys()):
        before, after = a.get(symbol, OFF), b.get(symbol, OFF)
        if before == after:
            continue
        if before == OFF:
            added[symbol] = after
        elif after == OFF:
            removed[symbol] = before
        else:
            changed[symbol] = Pair(before, after)
    return Differences(added, removed, changed)


def pairs(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, Pair]:
    """Return both values of every name, also where they are equal; "" where one is missing."""
    return {name: Pair(a.get(name, ""), b.get(name, "")) for name in {**a, **b}}
