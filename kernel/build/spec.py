# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel to build, as a value: its tree, fragments and tools, and how to run make on them.

In the sandbox the tree is read-only at /mnt/src and the output tree writable at /mnt/out; there is
no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from blockyard.kernel.build import ccache, errors
from blockyard.kernel.build.ccache import Objects
from blockyard.kernel.build.toolchain import Toolchain
from blockyard.kernel.config import kconfig
from blockyard.kernel.config.kconfig import Fragment, Merged
from blockyard.kernel.host import commands, store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.limits import CONFIGURE_S, MODULE_S, build_limits, kernel_time_s
from blockyard.kernel.host.process import run
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources.tree import Tree

RECIPE = 2  # to be raised if the same inputs give another kernel

# Fixed, so that the same inputs give the same bytes (Documentation/kbuild/reproducible-builds.rst).
REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "blockyard",
    "KBUILD_BUILD_HOST": "blockyard",
}


@dataclass(frozen=True)
class BuildSpec:
    """A kernel to build: all that its bytes depend on, and what is omitted."""

    name: str  # what the user called it
    tree: Tree
    fragments: tuple[Fragment, ...]  # a later one wins
    toolchain: Toolchain
    tools: ToolRoot  # all programs besides compilers
    omitted: Mapping[str, str] = field(default_factory=dict)  # "Rust" or a driver → why
    objects: Objects | None = None  # the folders for ccache

    @cached_property
    def merged(self) -> Merged:
        """The requests of all fragments."""
        return kconfig.merge(self.fragments)

    @cached_property
    def key(self) -> str:
        """The kernel's key in the cache; the same inputs give the same key."""
        return store.digest("kernel", RECIPE, self.tree.identity, *self._how())

    def _how(self) -> tuple[str, dict[str, str]]:
        return kconfig.render(self.merged), dict(self.toolchain.versions)

    @property
    def out(self) -> Path:
        """The output tree (generated headers, Rust metadata, objects) in the cache."""
        store.use("builds", self.out_key)
        return store.directory("builds") / self.out_key

    @property
    def out_key(self) -> str:
        """The output tree's key in the cache; that of a user's directory outlives its states."""
        if not self.tree.build_id:
            return self.key
        return store.digest("place", RECIPE, self.tree.build_id, *self._how())

    @property
    def log(self) -> Path:
        """The log with all output of make."""
        return store.directory("logs") / f"kernel-{self.key}.log"

    @property
    def usage(self) -> Path:
        """A file with a line per make: CPU seconds, number of C objects from ccache, command."""
        return self.log.with_suffix(".usage")

    def sandbox(self, **read_only: Path) -> Sandbox:
        """The toolchain's sandbox, with the tree and the output tree in it."""
        return replace(
            self.toolchain.sandbox(REPRODUCIBLE),
            read_only={"src": self.tree.path, **read_only},
            writable={"out": self.out},
            supervised=True,
            limits=build_limits().within(CONFIGURE_S),
        )

    def module_make(self) -> tuple[Sandbox, list[str]]:
        """The read-only sandbox and the make command, without targets, for modules."""
        sandbox = self.sandbox()
        read_only = {**sandbox.read_only, "out": self.out}
        limits = sandbox.limits.within(MODULE_S)
        return replace(sandbox, read_only=read_only, writable={}, limits=limits), self.make_argv()

    def make_argv(self, *targets: str) -> list[str]:
        """The make command inside the sandbox."""
        argv = ["make", "-C", f"{BIND}/src", f"O={BIND}/out", f"-j{settings().jobs}"]
        argv += self.toolchain.make_arguments
        # without it, syn, a library that only runs during the build, takes 28 s instead of 5
        return [*argv, "HOSTRUSTFLAGS=-Copt-level=0", *targets]

    def make(self, *targets: str, doing: str) -> None:
        """Run make in the sandbox."""
        self._run(self.sandbox(), self.make_argv(*targets), doing)

    def compile(self, *targets: str, doing: str) -> None:
        """Run make in the sandbox, with ccache if the build has folders for it.

        Only this method uses ccache: other runs of make must not be able to write to its folders.
        """
        sandbox, argv = self.sandbox(), self.make_argv(*targets)
        time_s = kernel_time_s(settings().jobs)
        sandbox = replace(sandbox, limits=sandbox.limits.within(time_s))
        if self.objects:
            sandbox = self.objects.sandbox(sandbox, self.toolchain)
            argv = self.objects.argv(argv)
        self._run(sandbox, argv, doing)

    def _run(self, sandbox: Sandbox, argv: Sequence[str], doing: str) -> None:
        run(
            sandbox.argv(argv),
            log=self.log,
            doing=f"kernel {self.name}: {doing}",
            limits=sandbox.limits,
            outputs=[self.out],
            used=partial(self._note_usage, commands.line(argv)),
            explain=errors.explainer(self.known_paths),
        )

    def _note_usage(self, command: str, cpu_s: float) -> None:
        """Append a line to `usage`; makefiles can write to the log, but not to this file."""
        with open(self.usage, "a") as file:
            file.write(f"{cpu_s:.2f} {ccache.take_hits(self.out)} {command}\n")

    @property
    def known_paths(self) -> dict[str, str]:
        """Prefix of paths in make's output → prefix for the user; empty for a tree in the cache."""
        return {f"{BIND}/src/": f"{self.tree.build_id}/" if self.tree.build_id else ""}
