# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests that a run is at: named when they take long, and when the run is interrupted."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from blockyard.kernel.host.progress import note

LONG_S = 30.0  # a test that takes so long is named; then after twice as long, and so on


class RunningTests:
    """The tests that began and did not end. As a context manager it names the long ones."""

    def __init__(self, long_s: float = LONG_S) -> None:
        self._long_s = long_s
        self._begun: dict[str, float] = {}  # name → seconds of the clock
        self._next: dict[str, float] = {}  # name → named after so many seconds
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._stderr: TextIO | None = None

    def begin(self, name: str) -> None:
        """A test began."""
        with self._lock:
            self._begun[name] = time.monotonic()
            self._next[name] = self._long_s

    def end(self, name: str) -> None:
        """A test ended."""
        with self._lock:
            self._begun.pop(name, None)

    def names(self) -> tuple[str, ...]:
        """In the order in which they began."""
        with self._lock:
            return tuple(self._begun)

    def __enter__(self) -> Self:
        # pytest has stderr to itself while a test runs in this process
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
            with contextlib.suppress(OSError):  # what could not be written before
                self._stderr.close()

    def _watch(self) -> None:
        while not self._stopped.wait(self._long_s / 10):
            for line in self._long():
                note(line, self._stderr)

    def _long(self) -> list[str]:
        now = time.monotonic()
        lines = []
        with self._lock:
            for name, begun in self._begun.items():
                if now - begun >= self._next[name]:
                    lines.append(f"still running: {name}, for {now - begun:.0f} s")
                    self._next[name] *= 2
        return lines
