# SPDX-License-Identifier: GPL-2.0-or-later
"""What compiles a kernel: the tool root's programs or the host's, LLVM or GCC.

Which versions a kernel needs is said by the tree itself (scripts/min-tool-version.sh).
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
ORIGINS = (PINNED, HOST)  # the tool root's, the same everywhere, or those on PATH
COMPILERS = ("llvm", "gcc")

# What a kernel's bytes depend on: program → its Debian package. The packages `clang` and `gcc` are
# empty ones that name the version in use.
_PACKAGES = {
    "llvm": {"clang": r"clang-\d+", "lld": r"lld-\d+"},
    "gcc": {"gcc": r"gcc-\d+", "ld": "binutils"},
}
# Program → what scripts/min-tool-version.sh calls it.
_MINIMUM_OF = {"llvm": {"clang": "llvm"}, "gcc": {"gcc": "gcc", "ld": "binutils"}}
_RUST_PACKAGES = {"rustc": "rustc", "bindgen": "bindgen"}


@dataclass(frozen=True)
class Toolchain:
    """Programs that compile kernels, and the file system that they are in."""

    origin: str  # one of ORIGINS
    compiler: str  # one of COMPILERS
    root: Path  # the file system
    versions: Mapping[str, str]  # program → version; what is missing is not listed
    path: tuple[Path, ...] = ()  # where its programs are looked for first
    hidden: tuple[Path, ...] = ()  # folders of it that a build does not see,
    shown: tuple[Path, ...] = ()  # and folders below these that it sees after all

    @property
    def make_arguments(self) -> tuple[str, ...]:
        """What make is told of it."""
        return ("LLVM=1",) if self.compiler == "llvm" else ()

    def sandbox(self, environment: Mapping[str, str]) -> Sandbox:
        """Its file system, read-only."""
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
    """The oldest version of a tool (rustc, bindgen, llvm, gcc, ...) that a tree takes.

    Empty when the tree does not say. Its script is read and not run: it is not trusted, and a
    sandbox per question would take longer than all of the rest.
    """
    try:
        script = untrusted.read_text(
            tree.path, "scripts/min-tool-version.sh", untrusted.MAKEFILE_BYTES
        )
    except Failure:  # none, or a link to somewhere
        return ""
    case = script.partition(f"\n{tool})\n")[2].partition(";;")[0]
    words = [line.split() for line in case.splitlines()]
    answers = [
        line[1]
        for line in words
        if len(line) == 2 and line[0] == "echo" and re.fullmatch(r"[\d.]{1,20}", line[1], re.ASCII)
    ]
    return answers[-1] if answers else ""  # exceptions for other machines come first


def check(tree: Tree, toolchain: Toolchain) -> None:
    """Raises Failure when the compiler or the linker is too old for a tree."""
    for program, tool in _MINIMUM_OF[toolchain.compiler].items():
        needed, have = minimum(tree, tool), toolchain.versions.get(program, "")
        if needed and have and not versions.at_least(have, needed):
            raise Failure(
                f"Linux {tree.version} needs {tool} {needed} or newer, "
                f"the {toolchain.origin} toolchain has {have}",
                hint="--toolchain pinned has Debian's newer ones"
                if toolchain.origin == HOST
                else "--toolchain host takes newer ones that are on PATH",
            )


def rust_problem(tree: Tree, toolchain: Toolchain) -> str:
    """Why Rust code of this tree cannot be compiled with these programs; empty when it can."""
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
