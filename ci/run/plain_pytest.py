# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans a run of plain pytest with drivers in guests, for ci/pytest_plugin.py.

A request has the checked values of the options and of the project's file. It becomes the plan of
the run when the kernel is built.
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
    selection: Selection  # its scope; pytest selects the tests
    accel: str
    left: tuple[str, ...]  # kernels, variants and topologies of the project that are not tested

    def prepared(self) -> tuple[Plan, Path]:
        """Builds what guests need, and writes the plan; returns it and the run's folder.

        Raises UsageError and Failure, as builds do.
        """
        record.check_writable()
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


def request(options: Mapping[str, str], start: Path) -> Request:
    """Checks the options, by name, and the project's file; raises UsageError.

    For an empty option the project's file counts, then the default.
    """
    file = project.find(start) or project.Project()
    cells = project.cells(file, options["kernel"], options["variant"], options["topology"])
    first = cells[0]
    default = KernelSpec()
    spec = KernelSpec(
        kernel=first.kernel or default.kernel,
        variant=first.variant or default.variant,
        toolchain=options["toolchain"] or default.toolchain,
        compiler=options["compiler"] or default.compiler,
        fragments=paths(options["fragment"]) or tuple(map(Path, file.fragments)),
        modules=paths(options["module"]) or tuple(map(Path, file.modules)),
        series=paths(options["series"]) or tuple(map(Path, file.series)),
    ).checked()
    name = options["budget"] or "default"
    if name not in budget.NAMES:
        raise unknown("budget", name, budget.NAMES)
    selected = selection.select(
        options["driver"] or ",".join(file.drivers),
        options["console"] or ",".join(file.consoles),
        outside=plan.out_of_tree(spec),
        hardware=first.topology or DEFAULT.name,
        start=options["start"] or START,
        spend=name,
    )
    others = {word for cell in cells[1:] for word in (cell.kernel, cell.variant, cell.topology)}
    left = others - {first.kernel, first.variant, first.topology}
    return Request(spec, selected, options["accel"] or "auto", tuple(sorted(left)))
