# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel that a user requests, and how it is to be built, as a value.

A `KernelSpec` only holds names: it can be created, compared and stored on a machine that has none
of the files. `KernelSpec.checked` reads these files, before anything that takes long.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel import catalog, commas
from blockyard.kernel.build.toolchain import COMPILERS, ORIGINS
from blockyard.kernel.config import kconfig, variants
from blockyard.kernel.config.fragments import read_fragment
from blockyard.kernel.config.variants import PLAIN
from blockyard.kernel.host import redact
from blockyard.kernel.host.errors import UsageError, unknown
from blockyard.kernel.sources import reader


def numbered(option: str, text: str) -> int | None:
    """The number in an option; None if it is not given; raises UsageError for other text."""
    if text and not (text.isascii() and text.isdigit() and len(text) < 5):
        raise UsageError(f"invalid {option} {text!r}: expected a number, such as 2")
    return int(text) if text else None


@dataclass(frozen=True)
class KernelSpec:
    """The kernel, as text for `catalog.find`, and what to build it with."""

    kernel: str = catalog.DEFAULT
    variant: str = PLAIN
    fragments: tuple[Path, ...] = ()  # the user's; a later one wins
    toolchain: str = "pinned"
    compiler: str = "llvm"
    modules: tuple[Path, ...] = ()  # folders of modules outside the kernel tree
    series: tuple[Path, ...] = ()  # patches for the tree, see kernel.sources.reader
    series_version: int | None = None  # if a thread has several; None takes the newest

    def checked(self) -> KernelSpec:
        """Check all names and files, and return self.

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
        """A short name for messages: ``7.3``, ``7.3 debug``."""
        words = [redact.text(self.kernel)]
        words += [self.variant] if self.variant != PLAIN else []
        words += [path.name for path in (*self.series, *self.fragments)]
        words += [self.compiler] if self.compiler != "llvm" else []
        words += ["host"] if self.toolchain == "host" else []
        return " ".join(words)

    @property
    def options(self) -> list[str]:
        """The command-line options that request this kernel."""
        options = ["--kernel", commas.escaped(self.kernel), "--variant", self.variant]
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
