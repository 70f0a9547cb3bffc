# SPDX-License-Identifier: GPL-2.0-or-later
"""Kconfig fragments: read them, merge them, and check that the ``.config`` honours them.

The lines of tinyconfig and of the fragments (base, driver, variant, user) go through the kernel's
allnoconfig, which silently drops a symbol whose dependencies are not met.  So each requested symbol
is compared with the result:

    fragments --merge--> Merged --render--> text for .config --(make)--> .config
                              \\--------------- prove -----------------> what was dropped

These functions take text and return values.  kernel/config/explain.py says why a symbol was
dropped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from blockyard.kernel.host.errors import UsageError

_SET = re.compile(r"CONFIG_(?P<symbol>\w+)=(?P<value>.*)")
_UNSET = re.compile(r"# CONFIG_(?P<symbol>\w+) is not set")
_ALMOST_UNSET = re.compile(r"#\s*(CONFIG_)?\w+\s+(is\s+)?not\s+set\b", re.IGNORECASE)
_VALUE = re.compile(r'[ymn]|-?\d+|0[xX][0-9a-fA-F]+|"(?:[^"\\]|\\.)*"')


MAX_DROPPED = 10  # a fragment with more dropped symbols is taken for a whole configuration


class FragmentError(UsageError):
    """A line of a fragment is not Kconfig's `.config` syntax."""

    def __init__(self, fragment: str, line: int, text: str, hint: str) -> None:
        super().__init__(f"{fragment}:{line}: cannot read {text!r}", hint=hint)
        self.fragment = fragment
        self.line = line
        self.text = text


@dataclass(frozen=True)
class Fragment:
    """A piece of configuration, and its name in messages."""

    name: str  # usually its path in the repository
    text: str


@dataclass(frozen=True)
class Request:
    """One line of one fragment."""

    symbol: str  # without CONFIG_
    value: str  # as in .config, strings with their quotes; "n" for "is not set"
    fragment: str
    line: int

    @property
    def location(self) -> str:
        """The line that makes the request, as fragment:line."""
        return f"{self.fragment}:{self.line}"


@dataclass(frozen=True)
class Contradiction:
    """Two lines that request different values of a symbol; the later one wins."""

    earlier: Request
    later: Request


@dataclass(frozen=True)
class Merged:
    """The symbols that a sequence of fragments requests."""

    requests: Mapping[str, Request]  # by symbol; the line that won
    contradictions: tuple[Contradiction, ...]  # in the order of the later lines


@dataclass(frozen=True)
class Dropped:
    """A request that the resulting `.config` does not honour."""

    symbol: str
    requested: str
    got: str  # "n" when the symbol is absent
    fragment: str
    line: int


@dataclass(frozen=True)
class Promoted:
    """A module request that the `.config` has built in: honoured, but worth a note."""

    symbol: str
    fragment: str
    line: int


def parse(text: str, name: str = ".config") -> dict[str, str]:
    """Return the value of each symbol in a fragment or a `.config`, by name without CONFIG_.

    Values stay as written: y, m, n, a number, or a string with its quotes; "is not set" is n.
    Of two lines for one symbol the last counts, as in the kernel's conf_read_simple().
    Raises FragmentError, which calls the text `name`, for a line that is neither an
    assignment, "is not set", a comment nor blank.
    """
    return {request.symbol: request.value for request in _requests(Fragment(name, text))}


def merge(fragments: Sequence[Fragment]) -> Merged:
    """Return the requests of all fragments; a later line wins over an earlier one.

    Lines that ask for different values, in one fragment or in two, are recorded as
    contradictions.  Raises FragmentError for a line that cannot be read.
    """
    requests: dict[str, Request] = {}
    contradictions = []
    for fragment in fragments:
        for request in _requests(fragment):
            earlier = requests.get(request.symbol)
            if earlier and not _same(earlier.value, request.value):
                contradictions.append(Contradiction(earlier, request))
            requests[request.symbol] = request
    return Merged(requests, tuple(contradictions))


def render(merged: Merged) -> str:
    """Return the text to append to tinyconfig's for allnoconfig, sorted by symbol.

    Appending is enough, because in the kernel's conf_read_simple() the last line for a symbol
    wins.  The text depends only on the requests, since it is part of the kernel's cache key.
    """
    return "".join(
        f"# CONFIG_{symbol} is not set\n" if value == "n" else f"CONFIG_{symbol}={value}\n"
        for symbol, value in sorted((r.symbol, r.value) for r in merged.requests.values())
    )


def prove(requested: Mapping[str, Request], result: Mapping[str, str]) -> tuple[Dropped, ...]:
    """Return each request that `result`, a parsed `.config`, does not honour, by symbol.

    A symbol that is missing from `.config` is n.  A request for m that became y is honoured
    (`promoted` lists those), because the kernel has the code; y that became m is not, because
    the code may be needed before modules can be loaded.
    """
    return tuple(
        Dropped(symbol, request.value, got, request.fragment, request.line)
        for symbol, request in sorted(requested.items())
        if not _honoured(request.value, got := result.get(symbol, "n"))
    )


def promoted(requested: Mapping[str, Request], result: Mapping[str, str]) -> tuple[Promoted, ...]:
    """Return each request for m that is y in the result, by symbol."""
    return tuple(
        Promoted(symbol, request.fragment, request.line)
        for symbol, request in sorted(requested.items())
        if request.value == "m" and result.get(symbol) == "y"
    )


def whole_config_error(dropped: Sequence[Dropped]) -> str:
    """Return the message about a fragment that is a whole configuration; "" if there is none.

    A defconfig, or the `.config` of another kernel, relies on defaults and on menus that are off
    here, so that many of its symbols are dropped.  A reason for each would hide the cause.
    """
    counts = Counter(entry.fragment for entry in dropped)
    name, lost = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if lost <= MAX_DROPPED:
        return ""
    symbols = [entry.symbol for entry in dropped if entry.fragment == name]
    return (
        f"{name} does not fit this kernel as a fragment: {lost} of its symbols are lost "
        f"({', '.join(symbols[:3])}, ...)\n"
        "  a defconfig or a whole .config relies on defaults, and on menus that are off here:\n"
        "  write only the symbols that you need, and the symbols that they depend on;\n"
        f"  ./inv kernel.explain {symbols[0]} lists these"
    )


def _requests(fragment: Fragment) -> Iterator[Request]:
    for number, raw in enumerate(fragment.text.split("\n"), 1):
        line = raw.rstrip()
        if unset := _UNSET.fullmatch(line):
            yield Request(unset["symbol"], "n", fragment.name, number)
        elif assignment := _SET.fullmatch(line):
            if not _VALUE.fullmatch(assignment["value"]):
                raise FragmentError(fragment.name, number, line, _value_hint(assignment))
            yield Request(assignment["symbol"], assignment["value"], fragment.name, number)
        elif _ALMOST_UNSET.match(line) or (line and not line.startswith("#")):
            raise FragmentError(fragment.name, number, line, _line_hint(line))


def _value_hint(assignment: re.Match[str]) -> str:
    """Return how to write a value that could not be parsed."""
    symbol, value = assignment["symbol"], assignment["value"]
    if not value:
        return f'write CONFIG_{symbol}="" for an empty string, or remove the line'
    if "#" in value and _VALUE.fullmatch(value.split("#")[0].strip()):
        return "put the comment on a line of its own"
    if _VALUE.fullmatch(value.strip()):
        return "remove the space after '='"
    if value.strip().lower() in ("yes", "no", "module", "y", "n", "m"):
        return "the values of a bool or tristate are y, m and n"
    return "a value is y, m, n, a number, 0x… or a string in double quotes"


def _line_hint(line: str) -> str:
    """Return how to write a line that could not be parsed."""
    if _ALMOST_UNSET.match(line):
        return "the kernel only accepts this exact form: '# CONFIG_<symbol> is not set'"
    if re.fullmatch(r"\s*CONFIG_\w+\s*=.*", line):
        return "remove the spaces before CONFIG_ and around '='"
    if re.match(r"\w+=", line):
        return f"write CONFIG_{line}"
    return "write CONFIG_<symbol>=<value>, '# CONFIG_<symbol> is not set' or a # comment"


def _honoured(requested: str, got: str) -> bool:
    # An empty string may also be absent: CMDLINE="" with CMDLINE_BOOL off.
    return _same(requested, got) or (requested, got) in (("m", "y"), ('""', "n"))


def _same(a: str, b: str) -> bool:
    """Compare two values; numbers by value, since 0x10 may be written 0x010."""
    return a == b or (_number(a) is not None and _number(a) == _number(b))


def _number(value: str) -> int | None:
    try:
        return int(value, 16 if value[:2] in ("0x", "0X") else 10)
    except ValueError:
        return None
