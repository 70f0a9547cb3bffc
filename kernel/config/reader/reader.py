# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a kernel tree's Kconfig with kconfiglib and answers questions about symbols in JSON.

A tree's Kconfig files run shell commands, so they are read inside the sandbox: there, this
program has the standard library, `kconfiglib`, and its modules `environment` (the variables that
the tree's Makefile exports to Kconfig) and `keywords` (a search for unknown keywords).  It only
reads; the kernel's own tools write the `.config`.  Its steps:

1. `Tree` is kconfiglib 14.1.0 plus the language of Linux 7.x, and it remembers where each
   dependency was written.
2. `describe` turns a symbol into plain data, `answer` does so for the requested symbols and for
   the symbols of their unmet conditions.

The current directory must be writable (compiler probes leave a short-lived directory there).
"""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import kconfiglib as kl

from blockyard.kernel.config.reader.environment import kbuild_environment
from blockyard.kernel.config.reader.keywords import scan_keywords

MAX_DEPTH = 6  # how far the symbols of unmet conditions are followed
MAX_SYMBOLS = 120  # in one answer, besides the requested ones
MAX_LISTED = 12  # selectors, implying symbols and alternatives that are listed; all are counted
ALIKE = 0.75  # least ratio of equal letters, for a misspelt name
RELATED = 0.55  # least mean of the ratios for letters and words, for a renamed symbol
MUCH_BETTER = 0.4  # names that are so much less alike than the best are not suggested
MAX_NEAR = 5  # names that are suggested for an unknown one
NMY = "nmy"

# --- 1. the tree --------------------------------------------------------------------------

# Attributes of 7.x that kconfiglib does not know and that change none of its values: MODULES is
# the modules symbol anyway, and a `transitional` symbol is absent from a new .config.
_BARE_ATTRIBUTE = re.compile(r"^[ \t]*(?:transitional|modules)[ \t]*(?:#.*)?$", re.M)


class Clause(NamedTuple):
    """One condition as it was written."""

    expr: Any
    keyword: str  # depends, if, visible or prompt
    at: str  # file:line
    text: str = ""  # as written, if `expr` was rewritten


class Tree(kl.Kconfig):  # type: ignore[misc]  # kconfiglib has no types
    """A parsed Kconfig tree which knows the line of every condition.

    Needs `kbuild_environment` in `os.environ`; raises `kconfiglib.KconfigError`.
    """

    def __init__(self) -> None:
        self._written: dict[Any, list[Clause]] = {}  # menu node → conditions written in it
        self._outer: dict[Any, Any] = {}  # menu node → the menu, choice or `if` around it
        self._here: list[Clause] = []
        self._if: list[Clause] = []
        super().__init__("Kconfig", warn=False)

    def clauses(self, node: Any) -> Iterator[Clause]:
        """Yield the conditions on a symbol's definition: its own first, then those around it."""
        while node is not None:
            for clause in self._written.get(node, ()):
                for expr in kl.split_expr(clause.expr, kl.AND):
                    if expr is not self.y:
                        yield clause._replace(expr=expr)
            node = self._outer.get(node)

    def _open(self, filename: str, mode: str) -> io.StringIO:
        with super()._open(filename, mode) as file:
            return io.StringIO(_BARE_ATTRIBUTE.sub("", file.read()))  # line numbers stay

    def _expect_expr_and_eol(self) -> Any:
        expr, text = self._parse_expr(True), ""
        if self._check_token(kl._T_IF):  # `depends on X if Y` of 7.x: X || (Y = n)
            condition = self._parse_expr(True)
            text = f"{_text(expr)} if {_text(condition)}"
            expr = self._make_or(expr, self._is_n(condition))
        if self._tokens[self._tokens_i] is not None:
            self._trailing_tokens_error()
        clause = Clause(expr, self._line.split()[0], f"{self.filename}:{self.linenr}", text)
        if self._tokens[0] is kl._T_IF:
            self._if = [clause]
        else:
            self._here.append(clause)
        return expr

    def _is_n(self, expr: Any) -> Any:
        """Return `expr = n`, built like expr_trans_compare() in scripts/kconfig/expr.c."""
        if not isinstance(expr, tuple):
            return (kl.EQUAL, expr, self.n)
        if expr[0] in (kl.AND, kl.OR):
            swapped = kl.OR if expr[0] is kl.AND else kl.AND
            return (swapped, self._is_n(expr[1]), self._is_n(expr[2]))
        return (kl.NOT, self._is_n(expr[1]) if expr[0] is kl.NOT else expr)

    def _parse_prompt(self, node: Any) -> None:
        super()._parse_prompt(node)
        self._here.append(Clause(node.prompt[1], "prompt", f"{self.filename}:{self.linenr}"))

    def _parse_props(self, node: Any) -> None:
        self._here = self._written[node] = []
        self._outer[node] = node.parent
        super()._parse_props(node)

    def _parse_block(self, end_token: Any, parent: Any, prev: Any) -> Any:
        if end_token is kl._T_ENDIF:
            self._written[parent], self._outer[parent] = self._if, parent.parent
        return super()._parse_block(end_token, parent, prev)


# --- 2. the answers -----------------------------------------------------------------------


def answer(tree: Tree, names: list[str], wanted: Mapping[str, str]) -> dict[str, Any]:
    """Describe the symbols in `names`, and in turn those that keep them from `wanted`."""
    symbols: dict[str, Any] = {}
    queue = deque((name, wanted.get(name), 0) for name in names)
    while queue:
        name, value, depth = queue.popleft()
        if name in symbols or (depth and len(symbols) >= MAX_SYMBOLS):
            continue
        symbols[name] = describe(tree, name, value)
        if depth < MAX_DEPTH:
            queue.extend((leaf, need, depth + 1) for leaf, need in _unmet(symbols[name]))
    return symbols


def describe(tree: Tree, name: str, wanted: str | None) -> dict[str, Any]:
    """Return the facts about one symbol; `SymbolData` in report.py lists the fields."""
    sym = tree.syms.get(name)
    if sym is None or not sym.nodes:
        near = nearest(name, [known.name for known in tree.unique_defined_syms])
        return {"name": name, "exists": False, "wanted": wanted, "near": near}
    need = 2 if wanted == "y" and sym.type is kl.TRISTATE else 1
    return {
        "name": name,
        "exists": True,
        "wanted": wanted,
        "type": kl.TYPE_TO_STR[sym.orig_type],
        "value": sym.str_value,
        "prompt": next((node.prompt[0] for node in sym.nodes if node.prompt), None),
        "assignable": [NMY[value] for value in sym.assignable],
        "definitions": [_definition(tree, node, need) for node in sym.nodes],
        "selected_by": _lower_limits(sym, sym.rev_dep, "orig_selects"),
        "defaults": [
            {"value": _text(value), "condition": _text(cond), "holds": NMY[kl.expr_value(cond)]}
            for value, cond in sym.orig_defaults
        ],
        "choice": None if sym.choice is None else _choice(sym.choice),
    }


def nearest(name: str, names: list[str]) -> list[str]:
    """Return the names that were probably meant: similar in their letters or their words."""
    upper = name.upper()
    words = set(upper.split("_"))
    likeness: dict[str, float] = {}
    for known in names:
        others = set(known.split("_"))
        shared = len(words & others) / len(words | others)
        letters = difflib.SequenceMatcher(None, known, upper)
        if not shared and letters.quick_ratio() < ALIKE:
            continue
        ratio = letters.ratio()
        if ratio >= ALIKE or (shared + ratio) / 2 >= RELATED:
            likeness[known] = shared + ratio
    best = max(likeness.values(), default=0.0)
    near = [known for known in likeness if likeness[known] >= best - MUCH_BETTER]
    return sorted(near, key=lambda known: (-likeness[known], known))[:MAX_NEAR]


def _definition(tree: Tree, node: Any, need: int) -> dict[str, Any]:
    clauses = [_clause(clause, need) for clause in tree.clauses(node)]
    prompt = node.prompt[0] if node.prompt else None
    return {"at": _at(node), "prompt": prompt, "clauses": clauses}


def _clause(clause: Clause, need: int) -> dict[str, Any]:
    value = kl.expr_value(clause.expr)
    alternatives = [
        {
            "text": _text(expr),
            "value": NMY[kl.expr_value(expr)],
            "leaves": list(_leaves(expr, need, False)),
        }
        for expr in kl.split_expr(clause.expr, kl.OR)
    ]
    return {
        "text": clause.text or _text(clause.expr),
        "keyword": clause.keyword,
        "at": clause.at,
        "value": NMY[value],
        "met": value >= need,
        "alternatives": alternatives[:MAX_LISTED],
        "alternative_count": len(alternatives),
    }


def _leaves(expr: Any, need: int, negated: bool) -> Iterator[dict[str, Any]]:
    """Yield the symbols in an expression, each with the value that would help."""
    if isinstance(expr, tuple) and expr[0] in (kl.AND, kl.OR):
        yield from _leaves(expr[1], need, negated)
        yield from _leaves(expr[2], need, negated)
    elif isinstance(expr, tuple) and expr[0] is kl.NOT:
        yield from _leaves(expr[1], need, not negated)
    elif isinstance(expr, tuple):
        met = (kl.expr_value(expr) > 0) is not negated
        yield _leaf(expr[1], _relation(expr, negated), met)
    elif negated:
        yield _leaf(expr, "n", 2 - kl.expr_value(expr) >= need)
    else:
        yield _leaf(expr, _on(expr, need), kl.expr_value(expr) >= need)


def _on(sym: Any, need: int) -> str:
    return "m or y" if need == 1 and sym.orig_type is kl.TRISTATE else "y"


def _relation(expr: Any, negated: bool) -> str:
    """Return what a comparison requires of its left side: n, m, y, "m or y", or as written."""
    operator, left, right = expr
    if right.is_constant and right.name in kl.STR_TO_TRI:
        equal = (operator is kl.EQUAL) is not negated
        if equal:
            return str(right.name)
        if right.name == "n":
            return _on(left, 1)
    return f"{'not ' if negated else ''}{kl.REL_TO_STR[operator]} {_text(right)}"


def _leaf(sym: Any, required: str, met: bool) -> dict[str, Any]:
    value = sym.str_value if sym.is_constant or sym.nodes else "n"
    leaf = {"name": sym.name, "value": value, "required": required, "met": met}
    return leaf | {"constant": bool(sym.is_constant)}


def _unmet(symbol: dict[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the symbols of unmet conditions with the n, m or y that each should have."""
    for definition in symbol.get("definitions", ()):
        for clause in definition["clauses"]:
            for alternative in () if clause["met"] else clause["alternatives"]:
                for leaf in alternative["leaves"]:
                    if not leaf["met"] and not leaf["constant"]:
                        need = leaf["required"].split()[0]  # "m or y" → m
                        yield leaf["name"], need if need in ("n", "m", "y") else None


def _lower_limits(sym: Any, rev_dep: Any, attribute: str) -> dict[str, Any]:
    """Return the symbols that select (or imply) a symbol, those that are on first."""
    selectors = {}
    for expr in kl.split_expr(rev_dep, kl.OR):
        other = kl.split_expr(expr, kl.AND)[0]
        if other.is_constant:
            continue
        for node in other.nodes:
            for target, cond in getattr(node, attribute):
                if target is sym:
                    value = min(other.tri_value, kl.expr_value(cond))
                    selectors[_at(node), _text(cond)] = (value, other.name, _text(cond), _at(node))
    ranked = sorted(selectors.values(), key=lambda entry: (-entry[0], entry[1]))
    listed = [
        {"name": name, "value": NMY[value], "condition": cond, "at": at}
        for value, name, cond, at in ranked[:MAX_LISTED]
    ]
    return {"count": len(ranked), "listed": listed}


def _choice(choice: Any) -> dict[str, Any]:
    node = choice.nodes[0]
    return {
        "prompt": node.prompt[0] if node.prompt else None,
        "at": _at(node),
        "selection": choice.selection.name if choice.selection else None,
        "members": [member.name for member in choice.syms],
    }


def _text(expr: Any) -> str:
    return str(kl.expr_str(expr))


def _at(node: Any) -> str:
    return f"{node.filename}:{node.linenr}"


def rust_complaint(srctree: Path) -> str:
    """Return, in one line, why `make rustavailable` rejects the Rust tools."""
    argv = ["sh", f"{srctree}/scripts/rust_is_available.sh", "-v"]  # 6.1 is silent without -v
    output = subprocess.run(argv, capture_output=True, text=True, check=False).stderr
    lines = [" ".join(line.strip("* ").split()) for line in output.splitlines()]
    end = next((i for i, line in enumerate(lines) if line.startswith("Please see")), len(lines))
    return " ".join(filter(None, lines[:end]))


def differences(tree: Tree, config: str) -> list[dict[str, str | None]]:
    """Return the symbols whose line in a `.config` differs from what kconfiglib would write."""
    pattern = re.compile(r"^(?:# )?CONFIG_(\w+)[= ].*$", re.M)
    kernel = {match[1]: match[0] for match in pattern.finditer(config)}
    reader = {sym.name: sym.config_string.rstrip("\n") or None for sym in tree.unique_defined_syms}
    return [
        {"symbol": name, "reader": reader.get(name), "kernel": kernel.get(name)}
        for name in sorted(kernel.keys() | reader.keys())
        if reader.get(name) != kernel.get(name)
    ]


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main(argv: list[str]) -> int:
    """Print one JSON object; return 1 when the tree could not be read (its "error" says why)."""
    parser = argparse.ArgumentParser(description="explain symbols of a kernel tree, as JSON")
    parser.add_argument("--srctree", type=Path, required=True)
    parser.add_argument("--config", type=Path, help="the .config that olddefconfig wrote")
    parser.add_argument("--make-var", type=_pair, action="append", default=[], metavar="N=V")
    parser.add_argument("--fragment-value", type=_pair, action="append", default=[], metavar="S=V")
    parser.add_argument("--unknown-keywords", action="store_true", help="list unknown keywords")
    parser.add_argument("--differences", action="store_true", help="compare with --config")
    parser.add_argument("symbols", nargs="*", metavar="SYMBOL")
    args = parser.parse_args(argv)

    out: dict[str, Any] = {"schema": 1, "error": None, "asked": args.symbols, "symbols": {}}
    stdout, sys.stdout = sys.stdout, sys.stderr  # $(info,…) in a Kconfig file prints
    try:
        env = kbuild_environment(args.srctree, dict(args.make_var))
        os.environ.pop("LC_ALL", None)
        os.environ.update(env)
        out["kernelversion"] = env["KERNELVERSION"]
        if args.unknown_keywords:
            out["unknown_keywords"] = scan_keywords(args.srctree, env)
        if args.symbols or args.differences:
            tree = Tree()
            if args.config:
                tree.load_config(str(args.config))
            out["modules"] = tree.modules.str_value
            out["symbols"] = answer(tree, args.symbols, dict(args.fragment_value))
            if out["symbols"].get("RUST_IS_AVAILABLE", {}).get("value") == "n":
                out["rust_complaint"] = rust_complaint(args.srctree)
            if args.differences:
                out["differences"] = differences(tree, args.config.read_text(encoding="utf-8"))
    except (kl.KconfigError, OSError, ValueError) as error:
        out["error"] = str(error).strip()
        out.setdefault("unknown_keywords", scan_keywords(args.srctree, os.environ))
    finally:
        sys.stdout = stdout
    json.dump(out, sys.stdout, indent=1)
    print()
    return 1 if out["error"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
