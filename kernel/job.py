# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel to build, as a value: tree, fragments and tools, and how make is run on them.

The tree is read-only at /mnt/src, the output tree writable at /mnt/out, and there is no network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from kernel import kconfig
from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import UserError
from kernel.host.process import run
from kernel.host.sandbox import BIND, Sandbox
from kernel.host.settings import PROJECT, settings
from kernel.kconfig import Fragment
from kernel.sources.tree import Tree

RECIPE = 2  # raise it when the same inputs give another kernel
# What a kernel's bytes depend on besides its inputs: program → its Debian package (the package
# `clang` is an empty one that names the version in use).
TOOLS = {"clang": r"clang-\d+", "lld": r"lld-\d+", "rustc": "rustc", "bindgen": "bindgen"}

# Runs its arguments and prints the CPU time they took, for cpu_seconds(). From outside it cannot be
# seen: the sandbox's own init reaps the processes.
TIMED = ("bash", "-c", 'TIMEFORMAT="blockyard: cpu %U %S"; time "$@"', "bash")

# Fixed, so that the same inputs give the same bytes (Documentation/kbuild/reproducible-builds.rst).
REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "blockyard",
    "KBUILD_BUILD_HOST": "blockyard",
}


@dataclass(frozen=True)
class Build:
    """One kernel to build: everything that its bytes depend on."""

    name: str  # the catalog's
    tree: Tree
    fragments: tuple[Fragment, ...]  # a later one wins
    tools: ToolRoot

    @property
    def key(self) -> str:
        """Names the kernel in the cache; the same inputs give the same key."""
        config = kconfig.render(kconfig.merge(self.fragments))
        return store.digest("kernel", RECIPE, self.tree.origin, config, self.toolchain)

    @property
    def toolchain(self) -> dict[str, str]:
        """Program → version of its Debian package."""
        return {
            tool: version
            for tool, pattern in TOOLS.items()
            for package, version in self.tools.versions.items()
            if re.fullmatch(pattern, package)
        }

    @property
    def out(self) -> Path:
        """The output tree (objects, generated headers, Rust metadata)."""
        if not self.tree.place:
            return store.directory("builds") / self.key
        config = kconfig.render(kconfig.merge(self.fragments))
        place = store.digest("place", RECIPE, self.tree.place, config, self.toolchain)
        return store.directory("builds") / place

    @property
    def log(self) -> Path:
        """Everything that make printed."""
        return store.directory("logs") / f"kernel-{self.key}.log"

    def sandbox(self, **read_only: Path) -> Sandbox:
        """The tool root with the tree and the output tree in it."""
        return Sandbox(
            self.tools.root,
            read_only={"src": self.tree.path, **read_only},
            writable={"out": self.out},
            environment=REPRODUCIBLE,
        )

    def make_argv(self, *targets: str) -> list[str]:
        """The make command as typed inside the sandbox."""
        argv = ["make", "-C", f"{BIND}/src", f"O={BIND}/out", f"-j{settings().jobs}"]
        # syn, a host library that only runs inside the build, compiles in 5 s instead of 28
        return [*argv, "LLVM=1", "HOSTRUSTFLAGS=-Copt-level=0", *targets]

    def make(self, *targets: str, doing: str) -> None:
        """Runs make in the sandbox."""
        argv = self.sandbox().argv([*TIMED, *self.make_argv(*targets)])
        run(argv, log=self.log, doing=f"kernel {self.name}: {doing}")


def base_fragment() -> Fragment:
    """What every test kernel needs to boot and to be tested."""
    return read_fragment(PROJECT / "kernel" / "fragments" / "base.config")


def read_fragment(path: Path) -> Fragment:
    """A configuration fragment from a file, named as a user would find it."""
    name = str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)
    try:
        return Fragment(name, path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the configuration fragment {path}: {error}") from None
