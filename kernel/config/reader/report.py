# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of the JSON that `kernel/config/reader/reader.py` prints about a tree's symbols."""

from __future__ import annotations

from typing import TypedDict


class Leaf(TypedDict):
    """A symbol in a condition."""

    name: str
    value: str
    required: str  # n, m, y, "m or y", or a relation such as ">= 109600"
    met: bool
    constant: bool  # not a symbol: a literal, or the result of a $(…) probe


class Alternative(TypedDict):
    """One operand of a condition's `||`; one that holds is enough."""

    text: str
    value: str
    leaves: list[Leaf]


class Clause(TypedDict):
    """One operand of a condition's `&&`; all of them must hold."""

    text: str
    keyword: str  # depends, if, visible or prompt
    at: str  # file:line in the tree, here and below
    value: str
    met: bool  # high enough (n < m < y) for the wanted value
    alternatives: list[Alternative]  # the first few
    alternative_count: int


class Definition(TypedDict):
    """One `config` entry of a symbol; one whose conditions hold is enough."""

    at: str
    prompt: str | None
    clauses: list[Clause]


class Selector(TypedDict):
    """A symbol that selects or implies another symbol."""

    name: str
    value: str  # the lower limit that it sets now
    condition: str  # "y" if there is none
    at: str


class Selectors(TypedDict):
    """All symbols that select or imply a symbol."""

    count: int
    listed: list[Selector]  # the first few; those that are on come first


class Default(TypedDict):
    """A `default` line of a symbol."""

    value: str
    condition: str
    holds: str


class Choice(TypedDict):
    """The choice that a symbol is a member of."""

    prompt: str | None
    at: str
    selection: str | None
    members: list[str]


class SymbolData(TypedDict, total=False):
    """The facts about a symbol; only the first four fields if it does not exist."""

    name: str
    exists: bool
    wanted: str | None
    near: list[str]
    type: str
    value: str
    prompt: str | None
    assignable: list[str]
    definitions: list[Definition]
    selected_by: Selectors
    defaults: list[Default]
    choice: Choice | None


class Unknown(TypedDict):
    """A Kconfig keyword that the reader does not know, and its location."""

    keyword: str
    file: str
    line: int


class Difference(TypedDict):
    """A symbol whose `.config` line is not what the reader would have written."""

    symbol: str
    reader: str | None
    kernel: str | None


class Report(TypedDict, total=False):
    """The reader's JSON."""

    schema: int
    error: str | None  # why the tree could not be read
    kernelversion: str
    modules: str  # the value of MODULES
    asked: list[str]
    symbols: dict[str, SymbolData]
    unknown_keywords: list[Unknown]
    differences: list[Difference]
    rust_complaint: str  # of scripts/rust_is_available.sh, when RUST_IS_AVAILABLE is n
