# SPDX-License-Identifier: GPL-2.0-or-later
"""The programs that compile a kernel: those of the tool root or of the host, LLVM or GCC.

The tree states the versions that it needs (scripts/min-tool-version.sh).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from blockyard.kernel import versions
from blockyard.kernel.config import quirks
from blockyard.kernel.host import untrusted
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.sandbox import PATH, Sandbox
from blockyard.kernel.sources.tree import Tree

PINNED, HOST = "pinned", "host"
ORIGINS = (PINNED, HOST)  # those of the tool root, the same on every machine, or those on PATH
COMPILERS = ("llvm", "gcc")

# The programs that a kernel's bytes depend on: program → pattern of its Debian package. The
# packages `clang` and `gcc` are empty and depend on the package with the version in use.
_PACKAGES = {
    "llvm": {"clang": r"clang-\d+", "lld": r"lld-\d+"},
    "gcc": {"gcc": r"gcc-\d+", "ld": "binutils"},
}
# Program → its name in scripts/min-tool-version.sh.
_MINIMUM_OF = {"llvm": {"clang": "llvm"}, "gcc": {"gcc": "gcc", "ld": "binutils"}}
_RUST_PACKAGES = {"rustc": "rustc", "bindgen": "bindgen"}


@dataclass(frozen=True)
class Toolchain:
    """Programs that compile kernels, and the file system that has them."""

    origin: str  # one of ORIGINS
    compiler: str  # one of COMPILERS
    root: Path  # the file system
    versions: Mapping[str, str]  # program → version; without missing programs
    path: tuple[Path, ...] = ()  # folders that come first in the build's PATH
    hidden: tuple[Path, ...] = ()  # folders that a build does not see
    shown: tuple[Path, ...] = ()  # folders below hidden ones that it sees

    @property
    def make_arguments(self) -> tuple[str, ...]:
        """The arguments of make that select this toolchain."""
        return ("LLVM=1",) if self.compiler == "llvm" else ()

    def sandbox(self, environment: Mapping[str, str]) -> Sandbox:
        """A sandbox with the file system read-only, and these variables besides PATH."""
        path = ":".join([*map(str, self.path), PATH])
        return Sandbox(
            self.root,
            hidden=self.hidden,
            shown=self.shown,
            environment={"PATH": path, **environment},
        )


def from_root(tools: ToolRoot, compiler: str = "llvm") -> Toolchain:
    """The tool root's compilers."""
    found = {
        program: version
        for program, pattern in (_PACKAGES[compiler] | _RUST_PACKAGES).items()
        for package, version in tools.versions.items()
        if re.fullmatch(pattern, package)
    }
    return Toolchain(PINNED, compiler, tools.root, found)


@cache
def minimum(tree: Tree, tool: str) -> str:
    """The oldest version of a tool (rustc, bindgen, llvm, gcc, ...) that a tree supports.

    Empty if the tree does not state it. The tree's script is parsed and not run: it is not trusted,
    and running it in a sandbox for each tool would be slow.
    """
    try:
        script = untrusted.read_text(
            tree.path, "scripts/min-tool-version.sh", untrusted.MAKEFILE_BYTES
        )
    except Failure:  # missing, or a symbolic link
        return ""
    case = script.partition(f"\n{tool})\n")[2].partition(";;")[0]
    words = [line.split() for line in case.splitlines()]
    answers = [
        line[1]
        for line in words
        if len(line) == 2 and line[0] == "echo" and re.fullmatch(r"[\d.]{1,20}", line[1], re.ASCII)
    ]
    return answers[-1] if answers else ""  # the versions for other architectures come first


def check(tree: Tree, toolchain: Toolchain) -> None:
    """Raise Failure if the compiler or the linker is too old for a tree."""
    for program, tool in _MINIMUM_OF[toolchain.compiler].items():
        needed, have = minimum(tree, tool), toolchain.versions.get(program, "")
        if needed and have and not versions.at_least(have, needed):
            raise Failure(
                f"Linux {tree.version} needs {tool} {needed} or newer, "
                f"the {toolchain.origin} toolchain has {have}",
                hint="--toolchain pinned has Debian's newer programs"
                if toolchain.origin == HOST
                else "--toolchain host uses the programs on PATH, which may be newer",
            )


def rust_problem(tree: Tree, toolchain: Toolchain) -> str:
    """Why these programs cannot compile the Rust code of a tree; empty if they can."""
    if not (tree.path / "rust").is_dir():
        return f"Linux {tree.version} has no Rust code"
    if reason := quirks.why_not("RUST", tree.version):
        return reason
    for tool in ("rustc", "bindgen"):
        needed, have = minimum(tree, tool), toolchain.versions.get(tool, "")
        if not have:
            return f"the {toolchain.origin} toolchain has no {tool}"
        if needed and not versions.at_least(have, needed):
            return (
                f"Linux {tree.version} needs {tool} {needed}, "
                f"the {toolchain.origin} toolchain has {have}"
            )
    return ""
