# SPDX-License-Identifier: GPL-2.0-or-later
"""What Blockyard costs over bare make and QEMU, and how it compares with its peers.

Both sides of a comparison run in turn and medians are compared. Nothing is judged here: the limits
are shown beside the figures. What each measurement does is told where it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from blockyard.ci.run import boot_env, circumstances, selection
from blockyard.ci.selfbench import blktests, boot, build, commands, consoles, fleet, labgrid, virtme
from blockyard.ci.selfbench.table import show
from blockyard.ci.selfbench.timing import Context
from blockyard.ci.selfbench.values import Measurement, Report
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note
from blockyard.kernel.spec import KernelSpec

__all__ = ["DEFAULT_WHAT", "MEASUREMENTS", "Measurement", "Report", "measure", "show"]

MEASUREMENTS: Mapping[str, Callable[[Context], Measurement | tuple[Measurement, ...]]] = {
    "warm-build": commands.warm_build,
    "boot": boot.boot,
    "boot-plain": boot.boot_plain,
    "snapshot": boot.snapshot,
    "build": build.build,
    "test": commands.test,
    "cold-test": commands.cold_test,
    "round-trip-serial": consoles.round_trip_serial,
    "round-trip-ssh": consoles.round_trip_ssh,
    "output": consoles.output,
    "memory": fleet.memory,
    "fleet": fleet.fleet,
    "virtme-ng": virtme.virtme,
    "labgrid": labgrid.labgrid,
    "blktests": blktests.blktests,
}
DEFAULT_WHAT = ("warm-build", "boot")


def measure(choice: KernelSpec, accel: str, what: str, runs: int, tree: str = "") -> Report:
    """Measures; raises UsageError for an unknown name. tree: a checkout of blktests."""
    if runs < 1:
        raise UsageError(f"--runs {runs}: nothing would be measured")
    names = selection.parse_names("measurement", what, list(MEASUREMENTS)) if what else DEFAULT_WHAT
    if "blktests" in names:
        blktests.check(choice, tree)  # before anything is measured
    ready = boot_env.ready(choice, accel)
    measurements: list[Measurement] = []
    for name in names:
        note(f"measuring {name} ...")  # no spinner: it would take part in what is measured
        found = MEASUREMENTS[name](Context(choice, ready, runs, tree))
        measurements += [found] if isinstance(found, Measurement) else found
    return Report(
        host=circumstances.this_host(),
        kernel=choice.name,
        accelerator=ready.accelerator.name,
        measurements=tuple(measurements),
    )
