# SPDX-License-Identifier: GPL-2.0-or-later
"""The running tests of a run: named when they take long, and when the run is interrupted."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from blockyard.kernel.host.progress import note

LONG_S = 30.0  # a running test is named after this time, then after twice this time, and so on


class RunningTests:
    """The tests that started and did not finish. As a context manager it prints the long ones."""

    def __init__(self, long_s: float = LONG_S) -> None:
        self._long_s = long_s
        self._started: dict[str, float] = {}  # name → seconds of the monotonic clock
        self._next: dict[str, float] = {}  # name → age in seconds at which it is printed
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._stderr: TextIO | None = None

    def start(self, name: str) -> None:
        """Adds a test."""
        with self._lock:
            self._started[name] = time.monotonic()
            self._next[name] = self._long_s

    def finish(self, name: str) -> None:
        """Removes a test."""
        with self._lock:
            self._started.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """The names of the running tests, the oldest first."""
        with self._lock:
            return tuple(self._started)

    def __enter__(self) -> Self:
        # pytest captures stderr while a test runs in this process
        with contextlib.suppress(OSError):
            self._stderr = open(os.dup(sys.stderr.fileno()), "w", errors="backslashreplace")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._thread.join()
        if self._stderr:
            with contextlib.suppress(OSError):  # of buffered output
                self._stderr.close()

    def _watch(self) -> None:
        while not self._stopped.wait(self._long_s / 10):
            for line in self._long():
                note(line, self._stderr)

    def _long(self) -> list[str]:
        now = time.monotonic()
        lines = []
        with self._lock:
            for name, started in self._started.items():
                if now - started >= self._next[name]:
                    lines.append(f"still running: {name}, for {now - started:.0f} s")
                    self._next[name] *= 2
        return lines
