# SPDX-License-Identifier: GPL-2.0-or-later
"""Many guests.

- ``memory``: what a guest that has come up takes of the host's memory: the proportional set size of
  its QEMU; ``guests``: how many such guests fit into what the host has available.
- ``fleet``: until eight guests that were started at once have all answered, against one guest.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blockyard.ci.selfbench import consoles
from blockyard.ci.selfbench.timing import Context
from blockyard.ci.selfbench.values import Measurement
from blockyard.images.machine import qemu
from blockyard.kernel.host.errors import Failure

GUESTS = 8
PROC = Path("/proc")
NAME = qemu.PROGRAM[:15]  # the kernel cuts the name of a process there


def memory(context: Context) -> tuple[Measurement, Measurement]:
    """MiB per guest, and how many guests fit."""
    available, taken = [], []
    for _ in range(context.runs):
        available.append(kib(PROC / "meminfo", "MemAvailable") / 1024)
        with consoles.guest(context) as booted:
            booted.serial.check("true")
            taken.append(
                sum(kib(one / "smaps_rollup", "Pss") for one in below(os.getpid(), NAME)) / 1024
            )
    fit = (int(room / size) for room, size in zip(available, taken, strict=True))
    return (
        Measurement(name="memory", unit="MiB", ours=tuple(round(size, 1) for size in taken)),
        Measurement(name="guests", unit="guests", ours=tuple(fit)),
    )


def kib(file: Path, field: str) -> int:
    """A field in kB of /proc/meminfo or of a process's smaps_rollup."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    if found is None:
        raise Failure(f"{file} has no {field}")
    return int(found[1])


def below(ancestor: int, name: str, proc: Path = PROC) -> list[Path]:
    """The processes of that name that descend from `ancestor`: their folders in /proc."""
    parents: dict[int, int] = {}
    named = []
    for status in proc.glob("[0-9]*/status"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            pid = int(fields["Pid"])
            parents[pid] = int(fields["PPid"])
            if fields["Name"] == name:
                named.append(pid)
    return [proc / str(pid) for pid in named if ancestor in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found


def fleet(context: Context) -> Measurement:
    """Wall time until all guests have answered."""
    many, one = [], []
    for _ in range(context.runs):
        many.append(_until_all_answered(context, GUESTS))
        one.append(_until_all_answered(context, 1))
    return Measurement(
        name="fleet",
        unit="s",
        ours=tuple(many),
        reference=tuple(one),
        against=f"one guest; ours are {GUESTS} at once",
        ratio=True,
    )


def _until_all_answered(context: Context, guests: int) -> float:
    """Seconds; every guest runs until the last one has answered."""
    all_answered = threading.Barrier(guests)

    def answer() -> float:
        try:
            with consoles.guest(context) as booted:
                booted.serial.check("true")
                answered = time.perf_counter()
                all_answered.wait()
        except BaseException:
            all_answered.abort()  # the others need not wait
            raise
        return answered

    begun = time.perf_counter()
    # a sandbox ends with the thread that started it: each guest has a thread for all of its life
    with ThreadPoolExecutor(guests) as threads:
        started = [threads.submit(answer) for _ in range(guests)]
    errors = [error for one in started if (error := one.exception())]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return round(max(one.result() for one in started) - begun, 3)
