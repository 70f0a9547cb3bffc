# SPDX-License-Identifier: GPL-2.0-or-later
"""Timing of measurements.

Both sides of a comparison alternate (ours, reference, ours, …), so that a drift of the machine's
speed affects both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from blockyard.ci.selfbench.values import Measurement
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.spec import KernelSpec


class Context(NamedTuple):
    """The kernel and boot environment to measure, and the number of runs."""

    spec: KernelSpec
    ready: BootEnv
    runs: int
    tree: str = ""  # a checkout of upstream blktests, for that comparison


class Elapsed(NamedTuple):
    """Time that some work took."""

    wall_s: float
    cpu_s: float  # of this process, without its children


def elapsed(work: Callable[[], object]) -> Elapsed:
    """Calls `work` once; returns its wall and CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu_s = time.process_time() - cpu
    return Elapsed(round(time.perf_counter() - wall, 6), round(cpu_s, 6))


def alternate(
    ours: Callable[[], object], reference: Callable[[], object], runs: int, *, warm_up: bool = False
) -> list[tuple[Elapsed, Elapsed]]:
    """Times of both sides, alternating, `runs` times. warm_up: run both once before, untimed."""
    if warm_up:
        ours()
        reference()
    return [(elapsed(ours), elapsed(reference)) for _ in range(runs)]


def compared(
    name: str, pairs: Sequence[tuple[Elapsed, Elapsed]], against: str, limit: float | None
) -> Measurement:
    """A measurement of wall seconds whose figure is ours / reference."""
    ours, reference = wall_s(pairs)
    return Measurement(
        name=name,
        unit="s",
        ours=ours,
        reference=reference,
        against=against,
        ratio=True,
        limit=limit,
    )


def wall_s(pairs: Sequence[tuple[Elapsed, Elapsed]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Wall seconds of our runs, and of the reference's."""
    return tuple(ours.wall_s for ours, _ in pairs), tuple(
        reference.wall_s for _, reference in pairs
    )
