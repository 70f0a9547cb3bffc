# SPDX-License-Identifier: GPL-2.0-or-later
"""Explains why a Kconfig symbol has its value, and what to do about it.

kernel/config/reader/reader.py gathers the facts in the sandbox and prints them as JSON (the types
are in kernel/config/reader/report.py); this module turns them into text for a kernel developer.  It
starts at the requested symbol, follows each condition that does not hold, and collects one piece of
advice at the end of each path:

    EROFS_FS is n, wanted y (base.config:16)
      defined only inside `if MISC_FILESYSTEMS` [=n] (fs/Kconfig:308)
        MISC_FILESYSTEMS can be y, but no fragment sets it
      what to do:
        - add CONFIG_MISC_FILESYSTEMS=y to base.config
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blockyard.kernel.config.kconfig import Dropped, Request
from blockyard.kernel.config.reader.report import (
    Clause,
    Default,
    Definition,
    Leaf,
    Report,
    SymbolData,
)


class _Words(NamedTuple):
    lines: list[str]
    advice: list[str]


@dataclass(frozen=True)
class Explanation:
    """Why a symbol has its value; as text it has no final newline."""

    head: str  # the symbol, its value and the request
    lines: tuple[str, ...]  # the chain of dependencies, each line indented by its depth
    advice: tuple[str, ...]  # what to do

    def __str__(self) -> str:
        lines = [self.head, *(_INDENT + line for line in self.lines)]
        if self.advice:
            lines.append(f"{_INDENT}what to do:")
            lines += [f"{_INDENT * 2}- {advice}" for advice in self.advice]
        return "\n".join(lines)

    @property
    def chain(self) -> str:
        """The chain of dependencies in one line, without the head and the advice."""
        words = "; ".join(line.strip() for text in self.lines for line in text.splitlines())
        # the last words that scripts/rust_is_available.sh prints before its notes
        return words.removesuffix(" See output and docs below for details:")


_INDENT = "  "
_MAX_ALTERNATIVES = 4

# Symbols that reflect a tool: the first pattern that matches the whole name gives the advice.
_TOOL_ADVICE = (
    (r"RUST_IS_AVAILABLE", "`make rustavailable` in that tree says which Rust tool is missing "
     "or too old; scripts/min-tool-version.sh has the versions it needs (--toolchain host takes "
     "the tools on PATH)"),
    (r"RUSTC_\w+|HAVE_CFI_ICALL_NORMALIZE_INTEGERS_RUSTC", "use a newer rustc"),
    (r"BINDGEN_\w+", "use a newer bindgen"),
    (r"PAHOLE_\w+", "use a newer pahole (Debian package dwarves)"),
    (r"CC_IS_CLANG|CLANG_VERSION", "build with --compiler llvm and a clang that is new enough"),
    (r"CC_IS_GCC|GCC_VERSION|GCC_PLUGINS?", "build with --compiler gcc"),
    (r"LD_IS_LLD|LLD_VERSION", "link with a new enough ld.lld (--compiler llvm)"),
    (r"LD_IS_BFD|LD_VERSION", "link with a new enough GNU ld (--compiler gcc)"),
    (r"(CC|AS|LD|TOOLCHAIN|CLANG|GCC)_(HAS|HAVE|CAN)_\w+", "use a compiler and linker that "
     "have this feature; the tree probes for it"),
)  # fmt: skip


def explain(
    report: Report,
    name: str,
    requests: Mapping[str, Request],
    refusals: Sequence[str] = (),
    others: Sequence[str] = (),
) -> Explanation:
    """Return why symbol `name` of the report has its value, and what to do.

    `requests` are those of the merged fragments (empty if there are none): they say which line
    requested a value and where a missing one should be added.  `refusals` say why Blockyard does
    not request the symbol for this tree; then there is no advice to add it.  `others` is further
    advice on how to get the symbol.
    """
    data = report["symbols"][name]
    request = requests.get(name)
    where = f" ({request.location})" if request else ""
    if not data["exists"]:
        near = f"; the nearest names: {', '.join(data['near'])}" if data["near"] else ""
        version = f"Linux {report.get('kernelversion', '')}".strip()
        fixes = [f"correct the name or remove it in {request.fragment}"] if request else []
        head = f"{name} does not exist in {version}{where}{near}"
        return _finish(head, _Words([*refusals], [] if refusals else fixes))
    wanted = data["wanted"] or (request.value if request else None)
    head = f"{name} is {data['value'] or 'empty'}" + (f", wanted {wanted}{where}" if wanted else "")
    fragment = request.fragment if request else "a fragment of your own (--fragment FILE)"
    words = _Explainer(report, requests, fragment, may_add=not refusals).story(data, wanted)
    off = data["value"] == "n" and not refusals
    advice = [*words.advice, *others] if off else words.advice
    return _finish(head, _Words([*refusals, *words.lines], advice))


def explain_dropped(
    report: Report, dropped: Sequence[Dropped], requests: Mapping[str, Request]
) -> str:
    """Return the explanation of each dropped request, one paragraph per symbol."""
    return "\n\n".join(str(explain(report, entry.symbol, requests)) for entry in dropped)


def explain_failure(report: Report) -> str:
    """Return why the reader could not read the tree's Kconfig ("" if it could).

    Unknown keywords are listed in any case, since the answers may be wrong because of them.
    """
    error = report.get("error")
    lines = [f"the tree's Kconfig cannot be read: {error}"] if error else []
    for entry in report.get("unknown_keywords", ()):
        where = f"{entry['file']}:{entry['line']}"
        lines.append(f"unknown Kconfig keyword '{entry['keyword']}' ({where})")
    return "\n".join(lines)


def _finish(head: str, words: _Words) -> Explanation:
    return Explanation(head, tuple(words.lines), tuple(dict.fromkeys(words.advice)))


class _Explainer:
    """Walks the report from one symbol; explains each symbol once."""

    def __init__(
        self,
        report: Report,
        requests: Mapping[str, Request],
        fragment: str,
        *,
        may_add: bool = True,
    ) -> None:
        self._report = report
        self._requests = requests
        self._fragment = fragment  # where a missing line should be added
        self._may_add = may_add  # whether to advise adding or changing lines
        self._explained: set[str] = set()

    def story(self, data: SymbolData, wanted: str | None) -> _Words:
        """Return why the symbol has its value; if it is on, also the conditions that it meets."""
        words = self.reasons(data, wanted)
        if data["value"] != "n" and wanted != "n" and _honoured(data["value"], wanted):
            words.lines.extend(_conditions(data))
        return words

    def reasons(self, data: SymbolData, wanted: str | None) -> _Words:
        """Return why the symbol is not `wanted`; if that is None, why it has its value."""
        self._explained.add(data["name"])
        value = data["value"]
        if value != "n" and _honoured(value, wanted):
            return self._why_on(data, unwanted=wanted == "n")
        if value == "n" and wanted == "n":
            return self._why_off(data, None)
        if wanted == "m" and data["type"] in ("bool", "tristate"):
            if data["type"] == "bool":
                fix = self._add(data["name"], "y")
                return _Words([f"it is a bool ({_locations(data)}): m is not possible"], fix)
            if self._report.get("modules") == "n":
                return _Words(["m needs MODULES [=n]"], self._add("MODULES", "y"))
        return self._why_off(data, wanted)

    def _why_on(self, data: SymbolData, *, unwanted: bool) -> _Words:
        words = _Words([], [])
        for entry in data["selected_by"]["listed"]:
            if entry["value"] != "n":
                condition = f" if {entry['condition']}" if entry["condition"] != "y" else ""
                request = self._requests.get(entry["name"])
                source = f", which is set by {request.location}" if request else ""
                selector = f"{entry['name']}{condition} ({entry['at']})"
                words.lines.append(f"selected by {selector}{source}")
                words.advice.append(f"turn off {entry['name']}, which selects it")
        request = self._requests.get(data["name"])
        if not words.lines and request and request.value == data["value"]:
            words.lines.append(f"set by {request.location}")
        elif not words.lines:
            for default in [d for d in data["defaults"] if d["holds"] != "n"][:1]:
                condition = f" if {default['condition']}" if _conditional(default) else ""
                words.lines.append(
                    f"its default {default['value']}{condition} holds ({_locations(data)})"
                )
        if unwanted and data["prompt"] is None:
            words.lines.append("it has no prompt: a fragment cannot turn it off")
        return words if unwanted else _Words(words.lines, [])

    def _why_off(self, data: SymbolData, wanted: str | None) -> _Words:
        name, words = data["name"], _Words([], [])
        if tool := self._tool(name):
            value = ", ".join(default["value"] for default in data["defaults"]) or "n"
            lines = [f"the tree's check of the tools says {value} ({_locations(data)})"]
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
        if all(unmet) and data["prompt"] is not None:
            if name not in self._requests or self._requests[name].value == "n":
                words.advice.extend(self._add(name, _value_to_add(data, wanted)))
        elif data["prompt"] is None and not (all(unmet) and data["defaults"]):
            _append(words, self._no_prompt(data), "")
        elif not all(unmet):
            _append(words, self._not_requested(data, wanted), "")
        return words

    def _not_requested(self, data: SymbolData, wanted: str | None) -> _Words:
        """Return why a symbol is off although its conditions hold."""
        name, choice = data["name"], data["choice"]
        if choice and choice["selection"] and choice["selection"] != name:
            members = ", ".join(choice["members"])
            line = (
                f"{choice['selection']} is chosen instead ({choice['at']}): "
                f"'{choice['prompt']}' is one of {members}"
            )
            return _Words([line], [self._one_of_two(name, choice["selection"])])
        if wanted is not None and wanted not in data["assignable"]:
            return _Words([f"{wanted} is not a value for {data['type']} ({_locations(data)})"], [])
        possible = wanted or " or ".join(v for v in data["assignable"] if v != "n") or "set"
        request = self._requests.get(name)
        but = f"{request.location} says {request.value}" if request else "no fragment sets it"
        line = f"{name} can be {possible}, but {but}"
        return _Words([line], self._add(name, _value_to_add(data, wanted)))

    def _one_of_two(self, name: str, chosen: str) -> str:
        mine, other = self._requests.get(name), self._requests.get(chosen)
        if not mine or not other:
            return f"set {name} and no other symbol of that choice"
        return (
            f"set {name} ({mine.location}) or {chosen} ({other.location}), and turn off the other: "
            f"'# CONFIG_... is not set' in a later fragment"
        )

    def _no_prompt(self, data: SymbolData) -> _Words:
        by, count = data["selected_by"]["listed"], data["selected_by"]["count"]
        names = ", ".join(dict.fromkeys(entry["name"] for entry in by))
        more = f" and {count - len(by)} more" if count > len(by) else ""
        line = f"{data['name']} has no prompt: no fragment can set it"
        if names:
            how = f"turn on what selects {data['name']}: {names}{more}"
            return _Words([f"{line}; selected by {names}{more}"], [how])
        if not data["defaults"]:
            return _Words([f"{line}; nothing selects it"], [])
        defaults = [
            f"{_INDENT}default {default['value']}"
            + (f" if {default['condition']} [={default['holds']}]" if _conditional(default) else "")
            for default in data["defaults"]
        ]
        return _Words([f"{line}; its defaults ({_locations(data)}):", *defaults], [])

    def _clause(self, clause: Clause) -> _Words:
        simple = len(clause["alternatives"]) == 1
        words = _Words([_condition(clause)], [])
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
        """Explain one symbol in a condition; `alone`: the line above already shows its value."""
        name, required = leaf["name"], leaf["required"]
        if leaf["constant"]:
            return _Words([f"a literal or a probe of the tree; its value is {leaf['value']}"], [])
        state = [] if alone else [f"{name} is {leaf['value']}, must be {required}"]
        data = self._report["symbols"].get(name)
        if data is None or name in self._explained:
            return _Words(state, [])
        if not data["exists"]:
            return _Words([f"{name} is not defined in this tree"], [])
        wanted = required.split()[0]  # "m or y" → m
        if wanted not in ("n", "m", "y"):
            return _Words([f"{name} is {leaf['value']}, must be {required}"], self._tool(name))
        inner = self.reasons(data, wanted)
        # Lines about this symbol begin with its name; those about others are indented.
        lines = [x if x.startswith((" ", name)) else f"{name}: {x}" for x in inner.lines]
        if wanted == "n" and data["prompt"] is not None:
            inner.advice.extend(self._add(name, "n"))
        return _Words(lines or state, inner.advice)

    def _add(self, name: str, value: str) -> list[str]:
        """Return the advice to set a value; empty if Blockyard would not request it anyway."""
        if not self._may_add:
            return []
        line = f"'# CONFIG_{name} is not set'" if value == "n" else f"CONFIG_{name}={value}"
        request = self._requests.get(name)
        if request:
            return [f"change {request.location} to {line}"]
        return [f"add {line} to {self._fragment}"]

    def _tool(self, name: str) -> list[str]:
        """Return what to do when a symbol reflects a tool; empty for every other symbol."""
        return [text for pattern, text in _TOOL_ADVICE if re.fullmatch(pattern, name)][:1]


def _append(words: _Words, other: _Words, indent: str) -> None:
    words.lines.extend(indent + line for line in other.lines)
    words.advice.extend(other.advice)


def _locations(data: SymbolData) -> str:
    return ", ".join(definition["at"] for definition in data["definitions"])


def _honoured(value: str, wanted: str | None) -> bool:
    """Whether a value other than n is the wanted one or higher; also true if n is wanted."""
    return wanted in (None, "n", value, f'"{value}"') or (wanted, value) == ("m", "y")


def _value_to_add(data: SymbolData, wanted: str | None) -> str:
    """Return the value to advise: a tristate becomes a module unless another value is wanted."""
    return wanted or ("m" if data["type"] == "tristate" else "y")


def _conditional(default: Default) -> bool:
    return default["condition"] != "y"


def _condition(clause: Clause) -> str:
    """Return one condition with its value and its location."""
    phrase = {
        "depends": f"depends on {clause['text']}",
        "if": f"defined only inside `if {clause['text']}`",
        "visible": f"in a menu that is visible if {clause['text']}",
        "prompt": f"can be set only if {clause['text']}",
    }.get(clause["keyword"], clause["text"])
    return f"{phrase} [={clause['value']}] ({clause['at']})"


def _conditions(data: SymbolData) -> list[str]:
    """Return where a symbol is defined and the conditions that it meets there."""
    lines = []
    for definition in data["definitions"]:
        if _possible(definition):
            lines.append(f"defined at {definition['at']} ({data['type']})")
            lines += [_INDENT + _condition(clause) for clause in definition["clauses"]]
    return lines


def _possible(definition: Definition) -> bool:
    return all(clause["value"] != "n" for clause in definition["clauses"])
