# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel, built how, as a value.

A `KernelSpec` names things and reads nothing, so that it can travel: it can be made, compared and
stored where none of its files are. `KernelSpec.checked` reads what it names, before anything long
begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel import catalog
from blockyard.kernel.build.toolchain import COMPILERS, ORIGINS
from blockyard.kernel.config import kconfig, variants
from blockyard.kernel.config.fragments import read_fragment
from blockyard.kernel.config.variants import PLAIN
from blockyard.kernel.host import redact
from blockyard.kernel.host.errors import UsageError, unknown
from blockyard.kernel.sources import reader


def numbered(option: str, text: str) -> int | None:
    """The number in an option; None when it is not given."""
    if text and not (text.isascii() and text.isdigit() and len(text) < 5):
        raise UsageError(f"invalid {option} {text!r}: expected a number, such as 2")
    return int(text) if text else None


@dataclass(frozen=True)
class KernelSpec:
    """A kernel as `catalog.find` takes it, and what to build it with."""

    kernel: str = catalog.DEFAULT
    variant: str = PLAIN
    fragments: tuple[Path, ...] = ()  # of the user's own; a later one wins
    toolchain: str = "pinned"
    compiler: str = "llvm"
    modules: tuple[Path, ...] = ()  # folders of modules outside the kernel tree
    series: tuple[Path, ...] = ()  # patches for the tree, see kernel.sources.reader
    series_version: int | None = None  # of several in one thread; None takes the newest

    def checked(self) -> KernelSpec:
        """The same, after a look at all that it names on this machine.

        Raises UsageError for an unknown name, with the nearest ones, and for a fragment or a series
        that cannot be read.
        """
        catalog.find(self.kernel)
        if self.variant not in variants.names():
            raise unknown("variant", self.variant, variants.names())
        kconfig.merge([read_fragment(path) for path in self.fragments])
        for path in self.series:
            reader.read(path, self.series_version)
        if self.toolchain not in ORIGINS:
            raise unknown("toolchain", self.toolchain, ORIGINS)
        if self.compiler not in COMPILERS:
            raise unknown("compiler", self.compiler, COMPILERS)
        return self

    @property
    def name(self) -> str:
        """For people: ``7.3``, ``7.3 debug``."""
        words = [redact.text(self.kernel)]
        words += [self.variant] if self.variant != PLAIN else []
        words += [path.name for path in (*self.series, *self.fragments)]
        words += [self.compiler] if self.compiler != "llvm" else []
        words += ["host"] if self.toolchain == "host" else []
        return " ".join(words)

    @property
    def options(self) -> list[str]:
        """As options of a command of ours."""
        options = ["--kernel", self.kernel, "--variant", self.variant]
        options += ["--toolchain", self.toolchain, "--compiler", self.compiler]
        if self.fragments:
            options += ["--fragment", ",".join(map(str, self.fragments))]
        if self.modules:
            options += ["--module", ",".join(map(str, self.modules))]
        if self.series:
            options += ["--series", ",".join(map(str, self.series))]
        if self.series_version is not None:
            options += ["--series-version", str(self.series_version)]
        return options
