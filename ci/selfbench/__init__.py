# SPDX-License-Identifier: GPL-2.0-or-later
"""Benchmarks: what Blockyard costs over bare make and QEMU, and how it compares with its peers.

Both sides of a comparison run alternately, and medians are compared. A figure above its limit is
shown, not reported as an error. Each measurement is described in its module.
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


def measure(spec: KernelSpec, accel: str, what: str, runs: int, tree: str = "") -> Report:
    """Runs measurements. what: comma-separated names. tree: a checkout of blktests.

    Raises UsageError for an unknown name, or fewer than one run.
    """
    if runs < 1:
        raise UsageError(f"invalid --runs {runs}: expected at least 1")
    names = selection.parse_names("measurement", what, list(MEASUREMENTS)) if what else DEFAULT_WHAT
    if "blktests" in names:
        blktests.check(spec, tree)  # before anything is measured
    env = boot_env.ready(spec, accel)
    measurements: list[Measurement] = []
    for name in names:
        note(f"measuring {name} ...")  # no spinner: its CPU time would count
        result = MEASUREMENTS[name](Context(spec, env, runs, tree))
        measurements += [result] if isinstance(result, Measurement) else result
    return Report(
        host=circumstances.this_host(),
        kernel=spec.name,
        accelerator=env.accelerator.name,
        measurements=tuple(measurements),
    )
