# SPDX-License-Identifier: GPL-2.0-or-later
"""Waits for a program and detects when it exceeds its limits.

kernel/scripts/sandbox sets the limits that the kernel can enforce. Time, the size of the log and
the size of output folders are checked here.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.kernel.host import trees
from blockyard.kernel.host.limits import Limits

TICK_S = 0.2  # between two checks of the log and the disk
WALK_S = 10.0  # between two measurements of folders, at least,
WALK_SHARE = 20  # and at least this many times the duration of the last one
FREE_BYTES = 512 << 20  # for a build a disk with less free space is full;
FREE_SHARE = 50  # on a small disk, one with less than 1/50 free


class Exceeded(Exception):
    """A program exceeded a limit and must be killed.

    what: the limit, for a message. hint: what the user can do.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


def raised_by(setting: str) -> str:
    """A hint that names the setting that raises a limit."""
    return f"raise the limit with {setting} in config.toml, or with BLOCKYARD_{setting.upper()}"


@dataclass
class Watch:
    """A running program and its limits."""

    process: subprocess.Popen[bytes]
    log: Path
    limits: Limits
    outputs: Sequence[Path] = ()  # folders that it writes to
    cpu_s: float = 0.0  # CPU time of the program and its reaped children, set when it ends
    _next_walk: float = field(default_factory=lambda: time.monotonic() + WALK_S)
    _started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self._log_start = _size(self.log)

    def wait(self) -> int:
        """Waits and returns the exit code (-n for signal n).

        Raises Exceeded when a limit is exceeded; the program still runs then.
        """
        with _descriptor(self.process.pid) as pidfd:
            while (code := self._reap()) is None:
                self._look()
                select.select([pidfd] if pidfd is not None else [], [], [], TICK_S)
        return code

    def check_outputs(self) -> None:
        """Raises Exceeded when the output folders are too large."""
        most = self.limits.output_mib
        if most is None or not self.outputs:
            return
        size = sum(trees.size(folder, forced=True) for folder in self.outputs)
        if size > most << 20:
            raise Exceeded(
                f"it wrote more than {most} MiB to {self.outputs[0]}", raised_by("build_output_gb")
            )

    def cut_log(self) -> None:
        """Truncates the log to its limit; for after the end of the program."""
        if (most := self.limits.log_mib) is not None:
            end = self._log_start + (most << 20)
            with suppress(OSError):
                if self.log.stat().st_size > end:
                    os.truncate(self.log, end)

    def _reap(self) -> int | None:
        """Like Popen.poll, but also sets `cpu_s`."""
        if self.process.returncode is not None:
            return self.process.returncode
        try:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
        except ChildProcessError:  # SIGCHLD is ignored: the exit code is lost
            return self.process.wait()
        if not pid:
            return None
        self.cpu_s = usage.ru_utime + usage.ru_stime
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode

    def _look(self) -> None:
        now, limits = time.monotonic(), self.limits
        if limits.time_s is not None and now - self._started > limits.time_s:
            raise Exceeded(f"no end after {limits.time_s:.0f} s")
        if limits.log_mib is not None and _size(self.log) - self._log_start > limits.log_mib << 20:
            raise Exceeded(f"it printed more than {limits.log_mib} MiB", raised_by("build_log_mib"))
        for folder in self.outputs:
            if is_full(folder):
                raise Exceeded(f"the disk is full: {folder} has no space left")
        if self.outputs and now > self._next_walk:
            self.check_outputs()
            took = time.monotonic() - now
            self._next_walk = now + max(WALK_S, WALK_SHARE * took)


@contextmanager
def _descriptor(pid: int) -> Iterator[int | None]:
    """A pidfd, readable once the process has ended; None on kernels without pidfd_open(2)."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def is_full(folder: Path, *, most_bytes: int = FREE_BYTES) -> bool:
    """Whether the disk of a folder has less than `most_bytes` and less than 1/50 free."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return False
    total, free = disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize
    return free < min(most_bytes, total // FREE_SHARE)
