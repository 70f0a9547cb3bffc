# SPDX-License-Identifier: GPL-2.0-or-later
"""Time as a guest has it: seconds in which the host let it run.

Deadlines of guests are counted on this clock. It is the host's, less the time for which a thread of
QEMU was ready to run and had no processor (run_delay in /proc/<pid>/schedstat). A busy host so
stretches a deadline for as long as it is busy and no longer, and never that of a guest that is
idle. The clock also stands while QEMU is stopped by a signal, for some seconds, and while this
process itself does not run.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from blockyard.kernel import arch

PROC = Path("/proc")
NAME = arch.target().qemu.program[:15]  # the kernel cuts the name of a process there
SAMPLE_S = 0.1  # the host is asked no more often
STEP_S = 1.0  # who waits asks several times a second: more has passed only if it did not run
MOST_WAITED = 23 / 24  # of a time: no guest is believed to wait for a processor for all of it
STOPPED_S = 20.0  # for how long the clock stands while QEMU is stopped
SEARCH_S = 10.0  # QEMU is looked for no longer


class Pace:
    """The clock of one guest; starter: the process that starts its QEMU, or QEMU itself."""

    def __init__(self, starter: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._starter = starter
        self._clock = clock
        self._begun = self._at = clock()
        self._now = 0.0
        self._stopped_s = 0.0
        self._stalled_s = 0.0
        self._qemu: int | None = None
        self._waited: dict[str, int] = {}  # ns, of each thread

    def now(self) -> float:
        """Seconds since the guest's start in which it could have run, as of a moment ago."""
        at = self._clock()
        if (step := at - self._at) >= SAMPLE_S:
            self._at = at
            self._now += self._usable(min(step, STEP_S))
        return self._now

    def stalled_s(self) -> float:
        """Seconds so far for which a thread of QEMU waited for a disk of the host's.

        The guest may have been idle for nothing else. As of the last look of `now`.
        """
        self.now()
        return self._stalled_s

    def cpu_s(self) -> float | None:
        """What QEMU's threads have computed for; None where the host does not say."""
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
        """Of each thread of QEMU: ns that it ran, ns that it waited for a processor."""
        if self._qemu is None and self._at - self._begun < SEARCH_S:
            self._qemu = _find(self._starter)
        found = {}
        with contextlib.suppress(OSError):  # it has ended; no such files: an odd host
            for folder in (PROC / str(self._qemu) / "task").iterdir():
                with contextlib.suppress(OSError, ValueError):
                    run, wait, _ = (folder / "schedstat").read_text().split()
                    found[folder.name] = (int(run), int(wait))
        return found

    def _is_stopped(self) -> bool:
        return self._qemu is not None and _stat(PROC / str(self._qemu))[0] in ("T", "t")


def _find(starter: int) -> int | None:
    """QEMU among a process and those below it."""
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
    """The state of a process or thread, and its parent."""
    try:
        text = (folder / "stat").read_text(errors="replace")
    except OSError:
        return "X", "0"
    state, parent = text.rpartition(")")[2].split()[:2]
    return state, parent
