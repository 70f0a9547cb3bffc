# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock for a guest's deadlines: seconds in which the host let the guest run.

It is the host's clock without the time in which a thread of QEMU was runnable but had no CPU
(run_delay in /proc/<pid>/schedstat). So a busy host extends a deadline exactly as long as it is
busy, and never that of an idle guest. The clock also stops while this process itself does not run,
and, for STOPPED_S at most, while QEMU is stopped by a signal.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from blockyard.kernel import arch

PROC = Path("/proc")
NAME = arch.target().qemu.program[:15]  # the kernel truncates process names (TASK_COMM_LEN)
SAMPLE_S = 0.1  # at least this long between two readings of /proc
STEP_S = 1.0  # at most this much per reading: after a longer gap this process did not run itself
MOST_WAITED = 23 / 24  # at most this part of a step counts as waiting for a CPU
STOPPED_S = 20.0  # the clock stops at most this long while QEMU is stopped
SEARCH_S = 10.0  # how long to look for the QEMU process


class Pace:
    """The clock of one guest. starter: pid of QEMU or of the process that starts it."""

    def __init__(self, starter: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._starter = starter
        self._clock = clock
        self._started = self._at = clock()
        self._now = 0.0
        self._stopped_s = 0.0
        self._stalled_s = 0.0
        self._qemu: int | None = None
        self._waited: dict[str, int] = {}  # ns, by thread

    def now(self) -> float:
        """Seconds since the guest's start in which it could run; up to SAMPLE_S old."""
        at = self._clock()
        if (step := at - self._at) >= SAMPLE_S:
            self._at = at
            self._now += self._usable(min(step, STEP_S))
        return self._now

    def stalled_s(self) -> float:
        """Seconds so far in which a thread of QEMU waited for a disk of the host (state D).

        In that time the guest may have been idle only because of the host. Up to SAMPLE_S old.
        """
        self.now()
        return self._stalled_s

    def cpu_s(self) -> float | None:
        """CPU seconds of QEMU's threads; None when /proc does not tell."""
        times = [run for run, _ in self._threads().values()]
        return sum(times) / 1e9 if times else None

    def _usable(self, step: float) -> float:
        threads = self._threads()
        if self._is_stopped() and self._stopped_s < STOPPED_S:
            self._stopped_s += step
            return 0.0
        if not self._is_stopped():
            self._stopped_s = 0.0
        tasks = PROC / str(self._qemu) / "task"
        if any(_stat(tasks / name)[0] == "D" for name in threads):
            self._stalled_s += step
        waited = {name: wait for name, (_, wait) in threads.items()}
        most = max((wait - self._waited.get(name, 0) for name, wait in waited.items()), default=0)
        self._waited = waited
        return step - min(most / 1e9, step * MOST_WAITED)

    def _threads(self) -> dict[str, tuple[int, int]]:
        """Thread of QEMU → ns that it ran, ns that it waited for a CPU."""
        if self._qemu is None and self._at - self._started < SEARCH_S:
            self._qemu = _find(self._starter)
        times = {}
        with contextlib.suppress(OSError):  # QEMU has ended, or the host has no schedstat
            for folder in (PROC / str(self._qemu) / "task").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    run, wait, _ = (folder / "schedstat").read_text().split()
                    times[folder.name] = (int(run), int(wait))
        return times

    def _is_stopped(self) -> bool:
        return self._qemu is not None and _stat(PROC / str(self._qemu))[0] in ("T", "t")


def _find(starter: int) -> int | None:
    """The pid of QEMU: the process `starter` or a descendant of it."""
    parents = {pid: int(_stat(PROC / str(pid))[1]) for pid in _pids()}
    level = {starter}
    while level:
        for pid in level:
            with contextlib.suppress(OSError):
                if (PROC / str(pid) / "comm").read_text().startswith(NAME):
                    return pid
        level = {pid for pid, parent in parents.items() if parent in level}
    return None


def _pids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(path.name) for path in PROC.iterdir() if path.name.isdecimal())


def _stat(folder: Path) -> tuple[str, str]:
    """State and parent pid of a process or thread; ("X", "0") when it has ended."""
    try:
        text = (folder / "stat").read_text(errors="replace")
    except OSError:
        return "X", "0"
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, parent
