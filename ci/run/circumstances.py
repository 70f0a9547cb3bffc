# SPDX-License-Identifier: GPL-2.0-or-later
"""The circumstances of a run, as values of its record: tool, host, kernel options, selection.

To compare two runs, compare these first. Each type is a part of `ci.run.record.Run`; the
descriptions of fields become docs/run-record.md and its JSON Schema.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from blockyard.ci.run.selection import Selection
from blockyard.kernel.config.variants import PLAIN
from blockyard.kernel.host import redact, version
from blockyard.kernel.host.described import about
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.harness import budget


class Tool(msgspec.Struct, frozen=True):
    """The Blockyard that made the run."""

    version: Annotated[str, about("of the package")]
    commit: Annotated[str, about("of its checkout; empty when it is installed")] = ""
    dirty: Annotated[bool, about("whether tracked files of the checkout differ from it")] = False


class Host(msgspec.Struct, frozen=True):
    """The machine of the run."""

    name: Annotated[str, about("host name")]
    kernel: Annotated[str, about("uname -r")]
    cpus: Annotated[int, about("processors")]
    memory_mib: Annotated[int, about("memory, in MiB")]


class UsedAccelerator(msgspec.Struct, frozen=True):
    """The accelerator of the run's guests."""

    name: Annotated[str, about("`kvm` or `tcg`")]
    reason: Annotated[str, about("why it was chosen, for people")]


class KernelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The requested kernel, as options of ./inv; secrets in URLs are hidden."""

    kernel: Annotated[str, about("`--kernel`")]
    variant: Annotated[str, about("`--variant`")] = PLAIN
    fragments: Annotated[tuple[str, ...], about("`--fragment`: absolute paths")] = ()
    toolchain: Annotated[str, about("`--toolchain`")] = KernelSpec.toolchain
    compiler: Annotated[str, about("`--compiler`")] = KernelSpec.compiler
    modules: Annotated[tuple[str, ...], about("`--module`: absolute paths")] = ()
    series: Annotated[tuple[str, ...], about("`--series`: absolute paths")] = ()
    series_version: Annotated[int | None, about("`--series-version`")] = None

    @classmethod
    def of(cls, spec: KernelSpec) -> KernelOptions:
        """The options for a specification."""

        def absolute(paths: tuple[Path, ...]) -> tuple[str, ...]:
            return tuple(str(path.absolute()) for path in paths)

        return cls(
            kernel=redact.text(spec.kernel),
            variant=spec.variant,
            fragments=absolute(spec.fragments),
            toolchain=spec.toolchain,
            compiler=spec.compiler,
            modules=absolute(spec.modules),
            series=absolute(spec.series),
            series_version=spec.series_version,
        )


class Selected(msgspec.Struct, frozen=True, kw_only=True):
    """The requested tests, and how they ran."""

    drivers: Annotated[tuple[str, ...], about("names")]
    consoles: Annotated[tuple[str, ...], about("`serial`, `ssh`")]
    suites: Annotated[tuple[str, ...], about("names; empty for blktests")] = ()
    smoke: Annotated[bool, about("whether only the smoke tests were run")] = False
    expression: Annotated[str, about("`-k`")] = ""
    topology: Annotated[
        str, about("hardware of tests that request none: a name in images/topologies, or a path")
    ] = "default"
    start: Annotated[str, about("`boot`, `snapshot` or the faster one")] = "boot"
    budget: Annotated[budget.Name, about("`quick`, `default` or `long`")] = "default"
    seed: Annotated[int | None, about("of the order of the tests; null: their own order")] = None

    @classmethod
    def of(cls, selected: Selection) -> Selected:
        """The values of a selection."""
        scope = selected.scope
        return cls(
            drivers=scope.drivers,
            consoles=scope.consoles,
            suites=() if scope.upstream else selected.suites,
            smoke=scope.smoke,
            expression=selected.expression,
            topology=selected.topology,
            start=scope.start,
            budget=scope.budget,
            seed=selected.seed,
        )


class BlktestsCheckout(msgspec.Struct, frozen=True):
    """The checkout of upstream blktests whose tests were run."""

    folder: Annotated[str, about("absolute path")]
    digest: Annotated[str, about("a hash of what was taken of it")]
    seconds: Annotated[int, about("what a test with a time limit takes")] = 0


def this_host() -> Host:
    """The current machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return Host(platform.node(), platform.release(), os.cpu_count() or 1, memory)


def this_tool() -> Tool:
    """The running Blockyard."""
    own = version.current()
    return Tool(own.version, own.commit, own.modified)


def arguments() -> tuple[str, ...]:
    """The arguments of the command line; secrets in URLs are hidden."""
    words = (os.fsencode(word).decode(errors="backslashreplace") for word in sys.argv[1:])
    return tuple(map(redact.text, words))
