# SPDX-License-Identifier: GPL-2.0-or-later
"""One kernel to build, as a value: tree, fragments and tools, and how make is run on them.

The tree is read-only at /mnt/src, the output tree writable at /mnt/out, and there is no network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
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

RECIPE = 2  # raise it when the same inputs give another kernel

# Fixed, so that the same inputs give the same bytes (Documentation/kbuild/reproducible-builds.rst).
REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "blockyard",
    "KBUILD_BUILD_HOST": "blockyard",
}


@dataclass(frozen=True)
class BuildSpec:
    """One kernel to build: everything that its bytes depend on, and what it does without."""

    name: str  # what the user called it
    tree: Tree
    fragments: tuple[Fragment, ...]  # a later one wins
    toolchain: Toolchain
    tools: ToolRoot  # what is needed besides compilers
    omitted: Mapping[str, str] = field(default_factory=dict)  # "Rust" or a driver → why
    objects: Objects | None = None  # where C objects are kept for other builds

    @property
    def merged(self) -> Merged:
        """What is asked of the configuration."""
        return kconfig.merge(self.fragments)

    @property
    def key(self) -> str:
        """Names the kernel in the cache; the same inputs give the same key."""
        return store.digest("kernel", RECIPE, self.tree.identity, *self._how())

    def _how(self) -> tuple[str, dict[str, str]]:
        return kconfig.render(self.merged), dict(self.toolchain.versions)

    @property
    def out(self) -> Path:
        """The output tree (generated headers, Rust metadata, objects), held in the cache."""
        store.use("builds", self.out_key)
        return store.directory("builds") / self.out_key

    @property
    def out_key(self) -> str:
        """Names the output tree in the cache."""
        if not self.tree.build_id:
            return self.key
        return store.digest("place", RECIPE, self.tree.build_id, *self._how())

    @property
    def log(self) -> Path:
        """Everything that make printed."""
        return store.directory("logs") / f"kernel-{self.key}.log"

    @property
    def usage(self) -> Path:
        """What each make took: CPU seconds, how many C objects ccache had, and the command."""
        return self.log.with_suffix(".usage")

    def sandbox(self, **read_only: Path) -> Sandbox:
        """The toolchain's file system with the tree and the output tree in it."""
        return replace(
            self.toolchain.sandbox(REPRODUCIBLE),
            read_only={"src": self.tree.path, **read_only},
            writable={"out": self.out},
            supervised=True,
            limits=build_limits().within(CONFIGURE_S),
        )

    def module_make(self) -> tuple[Sandbox, list[str]]:
        """What builds modules outside the tree: a sandbox to read from, make without targets."""
        sandbox = self.sandbox()
        read_only = {**sandbox.read_only, "out": self.out}
        limits = sandbox.limits.within(MODULE_S)
        return replace(sandbox, read_only=read_only, writable={}, limits=limits), self.make_argv()

    def make_argv(self, *targets: str) -> list[str]:
        """The make command as typed inside the sandbox."""
        argv = ["make", "-C", f"{BIND}/src", f"O={BIND}/out", f"-j{settings().jobs}"]
        # syn, a host library that only runs inside the build, compiles in 5 s instead of 28
        argv += self.toolchain.make_arguments
        return [*argv, "HOSTRUSTFLAGS=-Copt-level=0", *targets]

    def make(self, *targets: str, doing: str) -> None:
        """Runs make in the sandbox."""
        self._run(self.sandbox(), self.make_argv(*targets), doing)

    def compile(self, *targets: str, doing: str) -> None:
        """Runs make in the sandbox, with ccache when the build has a place for objects.

        Apart from `make`, since whatever else runs on this output tree, such as the makefile of a
        module from outside, has no business with what ccache keeps.
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
        """Keeps a line on a make beside the log, which the makefiles can write to."""
        with open(self.usage, "a") as file:
            file.write(f"{cpu_s:.2f} {ccache.take_hits(self.out)} {command}\n")

    @property
    def known_paths(self) -> dict[str, str]:
        """Paths in what make prints → as the user knows them: below the tree, where it is ours."""
        return {f"{BIND}/src/": f"{self.tree.build_id}/" if self.tree.build_id else ""}
