# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between two kernel configurations, as values.

A symbol that is absent and one that is "not set" are both off: a tree that lacks a symbol and one
that has it switched off give the same kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

OFF = "n"
# What scripts/min-tool-version.sh of a tree is asked for.
TOOLS = ("llvm", "gcc", "rustc", "bindgen", "binutils")


class Pair(msgspec.Struct, frozen=True):
    """A value on both sides."""

    a: str
    b: str


class Differences(msgspec.Struct, frozen=True):
    """From one configuration to another, by symbol without CONFIG_."""

    added: dict[str, str]  # off in the first; the value in the second
    removed: dict[str, str]  # off in the second; the value in the first
    changed: dict[str, Pair]  # on in both


def compare(a: Mapping[str, str], b: Mapping[str, str]) -> Differences:
    """What it takes to come from `a` to `b`, both symbol → value as in ``.config``."""
    added, removed, changed = {}, {}, {}
    for symbol in sorted(a.keys() | b.keys()):
        one, other = a.get(symbol, OFF), b.get(symbol, OFF)
        if one == other:
            continue
        if one == OFF:
            added[symbol] = other
        elif other == OFF:
            removed[symbol] = one
        else:
            changed[symbol] = Pair(one, other)
    return Differences(added, removed, changed)


def pairs(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, Pair]:
    """Both sides' values of all names in either, equal ones included; "" for what is missing."""
    return {name: Pair(a.get(name, ""), b.get(name, "")) for name in {**a, **b}}
