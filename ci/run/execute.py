# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the tests of a run: our suites in this process's pytest, then each module's own tests.

A module's own tests run in an enclosure (module_tests.runner), so no process runs tests of two
authors.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.ci.run import collection
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.collection import own_id, portion_count
from blockyard.ci.run.module_tests import runner
from blockyard.ci.run.module_tests.runner import Part, Suite
from blockyard.ci.run.selection import Selection
from blockyard.ci.run.verdicts import Collector
from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.progress import note
from blockyard.tests.harness.plan import Plan

# options of pytest that need a terminal, which pytest-xdist's workers do not have
IN_ONE_PROCESS = {"--pdb", "--trace", "-s", "--capture=no"}
Names = dict[str, CaseId]  # pytest's id of a test → ours


@dataclass(frozen=True)
class Execution:
    """How the tests run."""

    plan: Path  # its file, in the run's folder
    selected: Selection
    collector: Collector  # the pytest plugin that gets all reports
    options: Sequence[str]  # more arguments of pytest
    guests: int  # that run at a time

    def run(self, names: Names, plan: Plan) -> tuple[int, list[str]]:
        """Runs the tests; returns pytest's exit code, and why modules' own tests ended early."""
        left, parts = dict(names), []
        for suite in collection.own_suites(self.selected, plan):
            prefix = own_id(suite, "")
            mine = {nodeid: name for nodeid, name in names.items() if nodeid.startswith(prefix)}
            parts.append((suite, mine))
            left = {nodeid: name for nodeid, name in left.items() if nodeid not in mine}
        code = self._trusted(left) if left else int(pytest.ExitCode.OK)
        problems = []
        for suite, mine in parts:
            if mine and not self.collector.interrupted and not self.collector.over:
                problems.append(self._own(suite, mine))
        return code, [problem for problem in problems if problem]

    def _trusted(self, names: Names) -> int:
        arguments = collection.trusted(self.selected)
        arguments += [*collection.arguments(self.plan, self.selected), *self.options]
        guests = 1 if IN_ONE_PROCESS & set(self.selected.arguments) else self.guests
        arguments += runner.workers(min(guests, portion_count(names)))
        return collection.call(arguments, self.collector)

    def _own(self, suite: Suite, names: Names) -> str:
        prefix = own_id(suite, "")
        inner = {nodeid.removeprefix(prefix): nodeid for nodeid in names}
        topologies = {name.slot.topology for name in names.values()}
        part = Part(
            ids=inner,
            directory=self.plan.parent,
            hardware=[suite.plan.hardware(name) for name in topologies],
            options=[option.replace(f"={prefix}", "=", 1) for option in self.options],
            guests=min(self.guests, portion_count(names)),
        )
        try:
            problem = runner.run(suite, part, self.collector)
        except KeyboardInterrupt:
            self.collector.interrupted = True
            return ""
        except (BlockyardError, OSError, subprocess.SubprocessError) as error:
            # no folder, copy or snapshot, or a full disk: the other results are still recorded
            problem = str(error)
            self.collector.lose(names, problem)
        if problem:
            problem = f"the tests in {suite.folder} ended early: {problem}"
            note(problem)
        return problem
