# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of a guest, and time to boot many.

- ``memory``: memory of a booted guest, as the proportional set size (PSS) of its QEMU; ``guests``:
  how many such guests fit into the available memory of the host.
- ``fleet``: time until eight guests, started together, have all answered; against one guest.
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
NAME = qemu.PROGRAM[:15]  # the kernel truncates process names


def memory(context: Context) -> tuple[Measurement, Measurement]:
    """Memory per guest in MiB, and how many guests fit into the host's memory."""
    available, used = [], []
    for _ in range(context.runs):
        available.append(kib(PROC / "meminfo", "MemAvailable") / 1024)
        with consoles.guest(context) as booted:
            booted.serial.check("true")
            used.append(
                sum(kib(process / "smaps_rollup", "Pss") for process in below(os.getpid(), NAME))
                / 1024
            )
    fit = (int(room / size) for room, size in zip(available, used, strict=True))
    return (
        Measurement(name="memory", unit="MiB", ours=tuple(round(size, 1) for size in used)),
        Measurement(name="guests", unit="guests", ours=tuple(fit)),
    )


def kib(file: Path, field: str) -> int:
    """A field of /proc/meminfo or smaps_rollup, in KiB; raises Failure if it is missing."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", file.read_text(), re.MULTILINE)
    if found is None:
        raise Failure(f"{file} has no {field}")
    return int(found[1])


def below(ancestor: int, name: str, proc: Path = PROC) -> list[Path]:
    """Folders in /proc of the descendants of process `ancestor` that have a name."""
    parents: dict[int, int] = {}
    named = []
    for status in proc.glob("[0-9]*/status"):
        with contextlib.suppress(
            FileNotFoundError, ProcessLookupError
        ):  # the process ended meanwhile
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
            pid = int(fields["Pid"])
            parents[pid] = int(fields["PPid"])
            if fields["Name"] == name:
                named.append(pid)
    return [proc / str(pid) for pid in named if ancestor in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    ancestors: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in ancestors:
        ancestors.add(pid)
    return ancestors


def fleet(context: Context) -> Measurement:
    """Wall time until all guests have answered, in seconds."""
    many, single = [], []
    for _ in range(context.runs):
        many.append(_until_all_answered(context, GUESTS))
        single.append(_until_all_answered(context, 1))
    return Measurement(
        name="fleet",
        unit="s",
        ours=tuple(many),
        reference=tuple(single),
        against=f"one guest; ours is {GUESTS} guests at once",
        ratio=True,
    )


def _until_all_answered(context: Context, guests: int) -> float:
    """Seconds until all guests have answered; each guest runs until the last answer."""
    all_answered = threading.Barrier(guests)

    def answer() -> float:
        try:
            with consoles.guest(context) as booted:
                booted.serial.check("true")
                answered = time.perf_counter()
                all_answered.wait()
        except BaseException:
            all_answered.abort()  # release the other threads
            raise
        return answered

    start_s = time.perf_counter()
    # a sandbox ends with the thread that started it, so each guest has a thread for its whole life
    with ThreadPoolExecutor(guests) as threads:
        futures = [threads.submit(answer) for _ in range(guests)]
    errors = [error for future in futures if (error := future.exception())]
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise error
    return round(max(future.result() for future in futures) - start_s, 3)
