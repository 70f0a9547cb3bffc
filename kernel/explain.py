# SPDX-License-Identifier: GPL-2.0-or-later
"""Says in words why a Kconfig symbol has the value it has, and what to do about it.

kernel/kconfig_reader.py gathers the facts in the sandbox and prints them as JSON; this module
turns them into text for a kernel developer.  It starts at the symbol that was asked for, goes
down each condition that does not hold, and collects one piece of advice at each dead end:

    EROFS_FS is n, wanted y (base.config:16)
      defined only inside `if MISC_FILESYSTEMS` [=n] (fs/Kconfig:308)
        MISC_FILESYSTEMS can be y, but nothing asks for it
      what to do:
        - add CONFIG_MISC_FILESYSTEMS=y to base.config
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

from kernel.kconfig import Dropped, Request


class Leaf(TypedDict):
    """A symbol in a condition."""

    name: str
    value: str
    required: str  # n, m, y, "m or y", or a relation such as ">= 109600"
    met: bool
    constant: bool  # not a symbol: a literal, or what a $(…) probe answered


class Alternative(TypedDict):
    """One operand of a condition's `||`; any of them is enough."""

    text: str
    value: str
    leaves: list[Leaf]


class Clause(TypedDict):
    """One operand of a condition's `&&`; all of them must hold."""

    text: str
    keyword: str  # depends, if, visible or prompt
    at: str  # file:line in the tree, here and below
    value: str
    met: bool  # far enough for the wanted value
    alternatives: list[Alternative]  # the first few
    alternative_count: int


class Definition(TypedDict):
    """One `config` entry of a symbol; any of them is enough."""

    at: str
    prompt: str | None
    clauses: list[Clause]


class Selector(TypedDict):
    """A symbol that selects or implies another one."""

    name: str
    value: str  # the lower limit that it sets now
    condition: str  # "y" if there is none
    at: str


class Selectors(TypedDict):
    """Who selects or implies a symbol."""

    count: int
    listed: list[Selector]  # the first few, those in force first


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
    """What the reader tells of a symbol; only the first four fields if it does not exist."""

    name: str
    exists: bool
    wanted: str | None
    near: list[str]
    type: str
    value: str
    prompt: str | None
    visibility: str
    assignable: list[str]
    definitions: list[Definition]
    selected_by: Selectors
    implied_by: Selectors
    defaults: list[Default]
    choice: Choice | None


class Unknown(TypedDict):
    """A Kconfig keyword that the reader does not know."""

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


class _Words(NamedTuple):
    lines: list[str]
    advice: list[str]


_INDENT = "  "
_MAX_ALTERNATIVES = 4

# Symbols that reflect a tool.  The first pattern that matches the whole name speaks.
_TOOL_ADVICE = (
    (r"RUST_IS_AVAILABLE", "`make rustavailable` in that tree says which Rust tool is missing "
     "or too old; scripts/min-tool-version.sh has the versions it needs"),
    (r"RUSTC_\w+|HAVE_CFI_ICALL_NORMALIZE_INTEGERS_RUSTC", "use a newer rustc"),
    (r"BINDGEN_\w+", "use a newer bindgen"),
    (r"PAHOLE_\w+", "use a newer pahole (Debian package dwarves)"),
    (r"CC_IS_CLANG|CLANG_VERSION", "build with LLVM=1 and a clang that is new enough"),
    (r"CC_IS_GCC|GCC_VERSION|GCC_PLUGINS?", "build with GCC (no LLVM=1)"),
    (r"LD_IS_LLD|LLD_VERSION", "link with a new enough ld.lld (LLVM=1)"),
    (r"LD_IS_BFD|LD_VERSION", "link with a new enough GNU ld"),
    (r"(CC|AS|LD|TOOLCHAIN|CLANG|GCC)_(HAS|HAVE|CAN)_\w+", "use a compiler and linker that "
     "have this feature; the tree probes for it"),
)  # fmt: skip


def explain(report: Report, name: str, requests: Mapping[str, Request]) -> str:
    """Return why symbol `name` of the report is what it is, and what to do.

    `requests` are the merged fragments' (empty if there are none): they tell which line asked
    for a value and where a missing one should be added.  The text has no final newline.
    """
    data = report["symbols"][name]
    request = requests.get(name)
    where = f" ({request.fragment}:{request.line})" if request else ""
    if not data["exists"]:
        near = f"; the nearest names: {', '.join(data['near'])}" if data["near"] else ""
        fix = f"correct the name or remove it{f' in {request.fragment}' if request else ''}"
        version = f"Linux {report.get('kernelversion', '')}".strip()
        return _finish(f"{name} does not exist in {version}{where}{near}", _Words([], [fix]))
    wanted = data["wanted"] or (request.value if request else None)
    head = f"{name} is {data['value'] or 'empty'}" + (f", wanted {wanted}{where}" if wanted else "")
    teller = _Teller(report, requests, request.fragment if request else "your fragment")
    return _finish(head, teller.reasons(data, wanted))


def explain_dropped(
    report: Report, dropped: Sequence[Dropped], requests: Mapping[str, Request]
) -> str:
    """Return the explanation of each dropped request, one paragraph per symbol."""
    return "\n\n".join(explain(report, entry.symbol, requests) for entry in dropped)


def explain_failure(report: Report) -> str:
    """Return why the reader could not read the tree's Kconfig ("" if it could).

    Keywords that it does not know are named either way: they warn of wrong answers.
    """
    error = report.get("error")
    lines = [f"the tree's Kconfig cannot be read: {error}"] if error else []
    for entry in report.get("unknown_keywords", ()):
        place = f"{entry['file']}:{entry['line']}"
        lines.append(f"unknown Kconfig keyword '{entry['keyword']}' ({place})")
    return "\n".join(lines)


def _finish(head: str, words: _Words) -> str:
    lines = [head, *(_INDENT + line for line in words.lines)]
    if words.advice:
        lines.append(f"{_INDENT}what to do:")
        lines += [f"{_INDENT * 2}- {advice}" for advice in dict.fromkeys(words.advice)]
    return "\n".join(lines)


class _Teller:
    """Walks the report from one symbol; tells each symbol's story once."""

    def __init__(self, report: Report, requests: Mapping[str, Request], fragment: str) -> None:
        self._report = report
        self._requests = requests
        self._fragment = fragment  # where a missing line should be added
        self._told: set[str] = set()

    def reasons(self, data: SymbolData, wanted: str | None) -> _Words:
        """Return why the symbol is not `wanted`; with no wish, why it is what it is."""
        self._told.add(data["name"])
        value = data["value"]
        honoured = wanted in (None, "n", value, f'"{value}"') or (wanted, value) == ("m", "y")
        if value != "n" and honoured:
            return self._why_on(data, unwanted=wanted == "n")
        if wanted == "m" and data["type"] in ("bool", "tristate"):
            if data["type"] == "bool":
                fix = self._add(data["name"], "y")
                return _Words([f"it is a bool ({_places(data)}): m is not possible"], [fix])
            if self._report.get("modules") == "n":
                return _Words(["m needs MODULES [=n]"], [self._add("MODULES", "y")])
        return self._why_off(data, wanted)

    def _why_on(self, data: SymbolData, *, unwanted: bool) -> _Words:
        words = _Words([], [])
        for entry in data["selected_by"]["listed"]:
            if entry["value"] != "n":
                condition = f" if {entry['condition']}" if entry["condition"] != "y" else ""
                words.lines.append(f"selected by {entry['name']}{condition} ({entry['at']})")
                words.advice.append(f"turn off {entry['name']}, which selects it")
        request = self._requests.get(data["name"])
        if not words.lines and request and request.value == data["value"]:
            words.lines.append(f"asked for by {request.fragment}:{request.line}")
        elif not words.lines:
            holding = [d for d in data["defaults"] if d["holds"] != "n"][:1]
            words.lines.extend(f"its default {d['value']} holds ({_places(data)})" for d in holding)
        if unwanted and data["prompt"] is None:
            words.lines.append("it has no prompt: a fragment cannot turn it off")
        return words if unwanted else _Words(words.lines or [f"defined at {_places(data)}"], [])

    def _why_off(self, data: SymbolData, wanted: str | None) -> _Words:
        name, words = data["name"], _Words([], [])
        if tool := self._tool(name):
            value = ", ".join(default["value"] for default in data["defaults"]) or "n"
            lines = [f"the tree's check of the tools says {value} ({_places(data)})"]
            if name == "RUST_IS_AVAILABLE" and self._report.get("rust_complaint"):
                lines.append(_INDENT + self._report["rust_complaint"])
            return _Words(lines, tool)
        unmet = [[c for c in d["clauses"] if not c["met"]] for d in data["definitions"]]
        if all(unmet):
            if len(unmet) > 1:
                words.lines.append(f"none of its {len(unmet)} definitions is possible:")
            for clauses in unmet:
                for clause in clauses:
                    _append(words, self._clause(clause), "")
        choice = data["choice"]
        if all(unmet) and data["prompt"] is not None:
            if name not in self._requests or self._requests[name].value == "n":
                words.advice.append(self._add(name, wanted or "y"))
        elif data["prompt"] is None and not (all(unmet) and data["defaults"]):
            _append(words, self._no_prompt(data), "")
        elif all(unmet):
            pass  # all was said
        elif choice and choice["selection"] and choice["selection"] != name:
            members = ", ".join(choice["members"])
            words.lines.append(
                f"{choice['selection']} is chosen instead ({choice['at']}): "
                f"'{choice['prompt']}' is one of {members}"
            )
            words.advice.append(f"ask for {name} and for no other symbol of that choice")
        elif wanted in data["assignable"] or wanted is None:
            request = self._requests.get(name)
            but = f"{request.fragment}:{request.line} says {request.value}" if request else ""
            but = but or "nothing asks for it"
            words.lines.append(f"{name} can be {wanted or 'set'}, but {but}")
            words.advice.append(self._add(name, wanted or "y"))
        else:
            words.lines.append(f"{wanted} is not a value for {data['type']} ({_places(data)})")
        return words

    def _no_prompt(self, data: SymbolData) -> _Words:
        by, count = data["selected_by"]["listed"], data["selected_by"]["count"]
        names = ", ".join(dict.fromkeys(entry["name"] for entry in by))
        more = f" and {count - len(by)} more" if count > len(by) else ""
        line = f"{data['name']} has no prompt: no fragment can set it"
        if names:
            how = f"turn on what selects {data['name']}: {names}{more}"
            return _Words([f"{line}; selected by {names}{more}"], [how])
        where = f"see its default at {_places(data)}" if data["defaults"] else "nothing selects it"
        return _Words([f"{line}; {where}"], [])

    def _clause(self, clause: Clause) -> _Words:
        simple = len(clause["alternatives"]) == 1
        phrase = {
            "depends": f"depends on {clause['text']}",
            "if": f"defined only inside `if {clause['text']}`",
            "visible": f"in a menu that is visible if {clause['text']}",
            "prompt": f"can be set only if {clause['text']}",
        }.get(clause["keyword"], clause["text"])
        words = _Words([f"{phrase} [={clause['value']}] ({clause['at']})"], [])
        options: list[str] = []
        for alternative in clause["alternatives"][:_MAX_ALTERNATIVES]:
            part = _Words([], [])
            for leaf in alternative["leaves"]:
                if not leaf["met"]:
                    alone = clause["text"] == leaf["name"]
                    _append(part, self._leaf(leaf, alone=alone), _INDENT)
            words.lines.extend(part.lines)
            options.append(" and ".join(dict.fromkeys(part.advice)))
            if simple:
                words.advice.extend(part.advice)
        if not simple and any(options):
            words.advice.append("one of: " + "; or ".join(filter(None, options)))
        if clause["alternative_count"] > _MAX_ALTERNATIVES:
            rest = clause["alternative_count"] - _MAX_ALTERNATIVES
            words.lines.append(f"{_INDENT}({rest} more alternatives)")
        return words

    def _leaf(self, leaf: Leaf, *, alone: bool) -> _Words:
        """Return the story of one symbol in a condition; `alone`: its value was just shown."""
        name, required = leaf["name"], leaf["required"]
        if leaf["constant"]:
            return _Words([f"a literal or a check of the tree that answered {leaf['value']}"], [])
        state = [] if alone else [f"{name} is {leaf['value']}, must be {required}"]
        data = self._report["symbols"].get(name)
        if data is None or name in self._told:
            return _Words(state, [])
        if not data["exists"]:
            return _Words([f"{name} is not defined in this tree"], [])
        wish = required.split()[0]  # "m or y" → m
        if wish not in ("n", "m", "y"):
            return _Words([f"{name} is {leaf['value']}, must be {required}"], self._tool(name))
        inner = self.reasons(data, wish)
        # A line that is about this symbol says so; those below it are indented.
        own = [x if x.startswith((" ", name)) else f"{name}: {x}" for x in inner.lines]
        if wish == "n" and data["prompt"] is not None:
            inner.advice.append(self._add(name, "n"))
        return _Words(own or state, inner.advice)

    def _add(self, name: str, value: str) -> str:
        line = f"'# CONFIG_{name} is not set'" if value == "n" else f"CONFIG_{name}={value}"
        request = self._requests.get(name)
        if request:
            return f"change {request.fragment}:{request.line} to {line}"
        return f"add {line} to {self._fragment}"

    def _tool(self, name: str) -> list[str]:
        """Return what to do when a symbol reflects a tool; empty for every other symbol."""
        return [text for pattern, text in _TOOL_ADVICE if re.fullmatch(pattern, name)][:1]


def _append(words: _Words, other: _Words, indent: str) -> None:
    words.lines.extend(indent + line for line in other.lines)
    words.advice.extend(other.advice)


def _places(data: SymbolData) -> str:
    return ", ".join(definition["at"] for definition in data["definitions"])
