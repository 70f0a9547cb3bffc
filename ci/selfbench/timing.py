# SPDX-License-Identifier: GPL-2.0-or-later
"""How times are taken.

Both sides of a comparison run in turn (ours, reference, ours, …), so that a machine whose speed
drifts is fair to both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from blockyard.ci.selfbench.values import Measurement
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.spec import KernelSpec


class Context(NamedTuple):
    """What is measured, and how often."""

    choice: KernelSpec
    ready: BootEnv
    runs: int
    tree: str = ""  # a checkout of upstream blktests, for what is compared with it


class Elapsed(NamedTuple):
    """What some work took."""

    wall_s: float
    cpu_s: float  # of this process, without its children


def elapsed(work: Callable[[], object]) -> Elapsed:
    """Does some work once."""
    begun, cpu = time.perf_counter(), time.process_time()
    work()
    cpu_s = time.process_time() - cpu
    return Elapsed(round(time.perf_counter() - begun, 6), round(cpu_s, 6))


def alternate(
    ours: Callable[[], object], reference: Callable[[], object], runs: int, *, warm_up: bool = False
) -> list[tuple[Elapsed, Elapsed]]:
    """Both, one after the other, `runs` times. `warm_up`: once before, not counted."""
    if warm_up:
        ours()
        reference()
    return [(elapsed(ours), elapsed(reference)) for _ in range(runs)]


def compared(
    name: str, pairs: Sequence[tuple[Elapsed, Elapsed]], against: str, limit: float | None
) -> Measurement:
    """Wall seconds of ours, as a ratio to the other side's."""
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
    """Wall seconds of both sides."""
    return tuple(ours.wall_s for ours, _ in pairs), tuple(
        reference.wall_s for _, reference in pairs
    )
