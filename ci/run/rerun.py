# SPDX-License-Identifier: GPL-2.0-or-later
"""The command that reruns a test of a run: the same kernel, driver, console and topology.

The report prints it below each failed test, and the record has it. Its paths are absolute.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.circumstances import BlktestsCheckout, KernelOptions, Selected
from blockyard.kernel import commas
from blockyard.kernel.host import installation

# A name in an expression of -k, and the words that are not names (_pytest.mark.expression).
_NAME = re.compile(r"(?:\w|[:+\-.\[\]\\/])+")
_OPERATORS = frozenset({"and", "or", "not", "None", "True", "False"})


@dataclass(frozen=True)
class Rerun:
    """What the commands of a run's tests have in common."""

    kernel: KernelOptions
    selection: Selected
    upstream: BlktestsCheckout | None = None
    trusted: bool = False  # whether modules' own tests ran without a sandbox

    def command(self, name: CaseId, nodeid: str) -> str:
        """The command line, quoted for a shell; nodeid: pytest's id of the test."""
        slot, selected = name.slot, self.selection
        if self.upstream:
            words = ["blktests", "--tree", self.upstream.folder]
            words += ["--seconds", str(self.upstream.seconds)]
        else:
            words = ["test"]
        words += [*self._kernel(), "--driver", slot.driver, "--console", slot.console]
        if not self.upstream:
            words += ["--suite", name.suite, "-k", expression(nodeid)]
        if selected.topology != "default":
            words += ["--topology", selected.topology]
        if selected.seed is not None:
            words += ["--seed", str(selected.seed)]
        if selected.budget != "default":
            words += [f"--{selected.budget}"]
        if self.trusted:
            words += ["--trust-tests"]
        if self.upstream:
            words += ["--", name.name]
        return f"{installation.program()} {shlex.join(words)}"

    def _kernel(self) -> list[str]:
        kernel = self.kernel
        words = ["--kernel", commas.escaped(kernel.kernel), "--variant", kernel.variant]
        if kernel.toolchain != _DEFAULTS.toolchain:
            words += ["--toolchain", kernel.toolchain]
        if kernel.compiler != _DEFAULTS.compiler:
            words += ["--compiler", kernel.compiler]
        words += _paths("--fragment", kernel.fragments) + _paths("--module", kernel.modules)
        words += _paths("--series", kernel.series)
        if kernel.series_version is not None:
            words += ["--series-version", str(kernel.series_version)]
        return words


_DEFAULTS = KernelOptions(kernel="")


def _paths(option: str, paths: Sequence[str]) -> list[str]:
    return [option, ",".join(paths)] if paths else []


def expression(nodeid: str) -> str:
    """An expression for -k that selects only this test of its suite and slot.

    -k matches parts of names. The closing bracket of the parameters excludes longer names. A name
    is split at characters that -k does not accept.
    """
    head, bracket, parameters = nodeid.partition("[")
    _, *classes, function = head.split("::")
    pieces = [*classes, *_NAME.findall(f"{function}{bracket}{parameters}")]
    return " and ".join(piece for piece in pieces if piece not in _OPERATORS)
