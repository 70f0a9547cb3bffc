# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the ``obj-`` lines in the makefiles of a module. Only kbuild's usual form is understood."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_OBJECTS = re.compile(
    r"^[ \t]*obj-(m|y|\$[({]CONFIG_(\w+)[)}])[ \t]*[:+?]?=([^#\n]*)", re.MULTILINE
)
_WORD = re.compile(r"[\w./-]+")
EXTRA_CFLAGS = re.compile(r"^[ \t]*(?:export[ \t]+)?EXTRA_CFLAGS\b", re.MULTILINE)
SINCE_NO_EXTRA_CFLAGS = "6.15"


@dataclass(frozen=True)
class Objects:
    """One ``obj-`` line of a makefile."""

    symbol: str  # of obj-$(CONFIG_<symbol>); empty for obj-m and obj-y
    names: tuple[str, ...]  # without .o; a folder ends in a slash

    @property
    def modules(self) -> tuple[str, ...]:
        """The names that are modules, not folders."""
        return tuple(name for name in self.names if not name.endswith("/"))


def objects(text: str) -> Iterator[Objects]:
    """The ``obj-`` lines of a makefile that build modules or enter folders."""
    for kind, symbol, words in _OBJECTS.findall(text.replace("\\\n", " ")):
        targets = (word for word in _WORD.findall(words) if word.endswith((".o", "/")))
        names = tuple(word.removesuffix(".o") for word in targets)
        if kind != "y" or any(name.endswith("/") for name in names):
            yield Objects(symbol, names)


def same_module(name: str, other: str) -> bool:
    """Whether both names mean the same module: the kernel treats - and _ as equal."""
    return name.replace("-", "_") == other.replace("-", "_")


def own_symbols(
    makefiles: Mapping[str, str], modules: Sequence[str], config: Mapping[str, str]
) -> list[str]:
    """Symbols, without CONFIG_, that make has to be given to build `modules`.

    makefiles: name → text. They are the symbols in the ``obj-`` lines of the modules that the
    kernel's configuration does not set to m, and of folders, unless the kernel sets them.
    """
    symbols: dict[str, None] = {}
    for text in makefiles.values():
        for line in objects(text):
            builds = any(
                same_module(name.rpartition("/")[2], module)
                for name in line.modules
                for module in modules
            )
            folder = any(name.endswith("/") for name in line.names)
            value = config.get(line.symbol, "n")
            if line.symbol and ((builds and value != "m") or (folder and value == "n")):
                symbols[line.symbol] = None
    return list(symbols)
