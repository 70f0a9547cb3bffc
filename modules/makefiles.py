# SPDX-License-Identifier: GPL-2.0-or-later
"""What the makefiles of a module say, as far as lines of kbuild's usual form go."""

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
    """One line that says what to build."""

    symbol: str  # of obj-$(CONFIG_<symbol>); empty: obj-m or obj-y
    names: tuple[str, ...]  # without .o; a folder ends in a slash

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules among them."""
        return tuple(name for name in self.names if not name.endswith("/"))


def objects(text: str) -> Iterator[Objects]:
    """The obj- lines of a makefile."""
    for how, symbol, words in _OBJECTS.findall(text.replace("\\\n", " ")):
        found = (word for word in _WORD.findall(words) if word.endswith((".o", "/")))
        names = tuple(word.removesuffix(".o") for word in found)
        if how != "y" or any(name.endswith("/") for name in names):
            yield Objects(symbol, names)


def same(one: str, other: str) -> bool:
    """Whether two names are of one module: the kernel makes no difference between - and _."""
    return one.replace("-", "_") == other.replace("-", "_")


def own_symbols(
    makefiles: Mapping[str, str], modules: Sequence[str], config: Mapping[str, str]
) -> list[str]:
    """Symbols, without CONFIG_, that the wanted modules wait for and that are not m in a kernel.

    Those of folders of modules count too, when the kernel does not know them.
    """
    found: dict[str, None] = {}
    for text in makefiles.values():
        for line in objects(text):
            wanted = any(
                same(name.rpartition("/")[2], one) for name in line.modules for one in modules
            )
            folder = any(name.endswith("/") for name in line.names)
            value = config.get(line.symbol, "n")
            if line.symbol and ((wanted and value != "m") or (folder and value == "n")):
                found[line.symbol] = None
    return list(found)
