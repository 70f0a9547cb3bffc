# SPDX-License-Identifier: GPL-2.0-or-later
"""What ci/pytest_plugin.py does when a run of plain pytest is one of ours.

A request is what the options and the project's file ask for, checked. It becomes the plan of the
run when the kernel is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blockyard.ci import project
from blockyard.ci.run import boot_env, record, selection
from blockyard.ci.run.selection import Selection
from blockyard.images.hardware.topology import DEFAULT
from blockyard.kernel.commas import paths
from blockyard.kernel.host.errors import unknown
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.harness import budget
from blockyard.tests.harness.plan import Plan
from blockyard.tests.harness.plan import write as write_plan

START = "auto"
PLAN_FILE = "plan.json"  # in the run's folder


@dataclass(frozen=True)
class Request:
    """A run of plain pytest."""

    spec: KernelSpec
    selection: Selection  # of it, drivers, consoles and hardware; pytest selects the tests
    accel: str
    left: tuple[str, ...]  # kernels, variants, topologies of the project that the run has not

    def prepared(self) -> tuple[Plan, Path]:
        """The plan, with everything built that guests need, and the run's folder, with its file.

        Raises the errors of a build.
        """
        record.check_place()
        ready = boot_env.ready(self.spec, self.accel, all_modules=False)
        directory = record.new_directory(ready.kernel.info.name)
        plan = self.selection.plan(ready.keys)
        write_plan(plan, directory / PLAN_FILE)
        return plan, directory

    def header(self, directory: Path | None) -> list[str]:
        """Lines for the head of pytest's report; directory: of the run, when tests are run."""
        scope = self.selection.scope
        drivers, consoles = ", ".join(scope.drivers), ", ".join(scope.consoles)
        lines = [f"blockyard: kernel {self.spec.name}, {drivers} over {consoles}"]
        if directory:
            lines.append(f"blockyard: guests' logs are in {directory}")
        if self.left:
            lines.append(f"blockyard: not in this run: {', '.join(self.left)}")
        return lines


def request(given: Mapping[str, str], start: Path) -> Request:
    """Checks the options, by name, and the project's file; raises UsageError.

    given: empty values are not given; the project's file counts for them, then the default.
    """
    mine = project.find(start) or project.Project()
    cells = project.cells(mine, given["kernel"], given["variant"], given["topology"])
    first = cells[0]
    default = KernelSpec()
    spec = KernelSpec(
        kernel=first.kernel or default.kernel,
        variant=first.variant or default.variant,
        toolchain=given["toolchain"] or default.toolchain,
        compiler=given["compiler"] or default.compiler,
        fragments=paths(given["fragment"]) or tuple(map(Path, mine.fragments)),
        modules=paths(given["module"]) or tuple(map(Path, mine.modules)),
        series=paths(given["series"]) or tuple(map(Path, mine.series)),
    ).checked()
    name = given["budget"] or "default"
    if name not in budget.NAMES:
        raise unknown("budget", name, budget.NAMES)
    selected = selection.select(
        given["driver"] or ",".join(mine.drivers),
        given["console"] or ",".join(mine.consoles),
        outside=plan.out_of_tree(spec),
        hardware=first.topology or DEFAULT.name,
        start=given["start"] or START,
        spend=name,
    )
    others = {word for cell in cells[1:] for word in (cell.kernel, cell.variant, cell.topology)}
    left = others - {first.kernel, first.variant, first.topology}
    return Request(spec, selected, given["accel"] or "auto", tuple(sorted(left)))
