# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs an untrusted program that reports through a pipe, and kills it at its limits.

Limited are the time between reports and in total, memory and number of all its processes, what it
writes to its folder, and the size of its reports. Processes are counted once a second. A cgroup
would be more exact, but not every user can make one.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.ci.run.module_tests.reports import LINE_BYTES
from blockyard.kernel.host.process import reaped, start

TICK_S = 1.0
END_S = 10.0  # limit for a sandbox to exit after its first process was killed
REPORTS_BYTES = 256 << 20  # limit for all reports, which are kept in memory
OUTPUT_BYTES = 16 << 10  # of the end of its output, which are kept
PAGE = os.sysconf("SC_PAGE_SIZE")


class Overrun(Exception):
    """A limit was exceeded; the message says which. silent: a time limit."""

    def __init__(self, what: str, *, silent: bool = False) -> None:
        super().__init__(what)
        self.silent = silent


@dataclass(frozen=True)
class Limits:
    """The limits of a program."""

    silence_s: float  # between two reports
    total_s: float  # from start to exit
    memory: int  # bytes, all its processes together
    folder: Path  # the one that it writes to
    disk: int = 16 << 30  # bytes in the folder
    files: int = 20_000  # in the folder
    processes: int = 500


@dataclass
class Watched:
    """A running program with limits."""

    process: subprocess.Popen[bytes]
    limits: Limits
    _reports: int
    output: bytearray = field(default_factory=bytearray)  # the end of its output

    def lines(self) -> Iterator[bytes]:
        """Yields its reports until it exits; raises Overrun."""
        assert self.process.stdout is not None
        rest = b""
        size = 0
        started = heard = looked = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for descriptor in (self._reports, self.process.stdout.fileno()):
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select(TICK_S):
                    data = os.read(key.fd, 1 << 16)
                    if not data:
                        selector.unregister(key.fd)
                    elif key.fd == self._reports:
                        *whole, rest = (rest + data).split(b"\n")
                        yield from whole
                        if whole:
                            heard = time.monotonic()
                        size += len(data)
                        if size > REPORTS_BYTES:
                            raise Overrun(f"more than {REPORTS_BYTES >> 20} MiB of reports")
                        if len(rest) > LINE_BYTES:
                            raise Overrun(f"a report is longer than {LINE_BYTES >> 20} MiB")
                    else:
                        self.output += data
                        del self.output[:-OUTPUT_BYTES]
                if (now := time.monotonic()) - looked >= TICK_S:
                    self._look()
                    looked = now
                for since, limit_s in (
                    (heard, self.limits.silence_s),
                    (started, self.limits.total_s),
                ):
                    if now - since > limit_s:
                        raise Overrun(f"no end after {limit_s:.0f} s", silent=True)

    def _look(self) -> None:
        limits = self.limits
        processes, memory = tree(self.process.pid)
        if processes > limits.processes:
            raise Overrun(f"more than {limits.processes} processes")
        if memory > limits.memory:
            raise Overrun(f"more than {limits.memory >> 20} MiB of memory")
        used(limits.folder, limits.disk, limits.files)


@contextlib.contextmanager
def watched(argv: Callable[[int], Sequence[str]], limits: Limits) -> Iterator[Watched]:
    """Starts a program and kills it at the end of the block; argv gets its pipe's descriptor."""
    ours, theirs = os.pipe()
    try:
        try:
            process = start(
                argv(theirs), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=[theirs]
            )
        finally:
            os.close(theirs)
        with reaped(process):
            try:
                yield Watched(process, limits, ours)
            finally:
                _end_all(process)
    finally:
        os.close(ours)


def _end_all(sandbox: subprocess.Popen[bytes]) -> None:
    """Kills the first process of the sandbox's namespace: the kernel then kills all others.

    bwrap exits after them. If bwrap were killed, they would live on for a moment.
    """
    if sandbox.poll() is not None:
        return
    first = [pid for pid, parent, _ in _processes() if parent == sandbox.pid]
    for pid in first:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if first:
        with contextlib.suppress(subprocess.TimeoutExpired):
            sandbox.wait(END_S)


def _processes() -> Iterator[tuple[int, int, int]]:
    """Yields id, parent's id and resident memory in bytes of each process of the host."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            data = Path(entry.path, "stat").read_bytes()
        except OSError:  # it has exited
            continue
        fields = data[data.rindex(b")") + 1 :].split()  # the name before it may hold anything
        yield int(entry.name), int(fields[1]), int(fields[21]) * PAGE


def tree(top: int) -> tuple[int, int]:
    """The number and the resident memory in bytes of a process and its descendants."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for pid, parent, size in _processes():
        children.setdefault(parent, []).append(pid)
        resident[pid] = size
    count, memory, waiting = 0, 0, [top]
    while waiting:
        pid = waiting.pop()
        count, memory = count + 1, memory + resident.get(pid, 0)
        waiting += children.get(pid, [])
    return count, memory


def used(folder: Path, disk: int, files: int) -> None:
    """Counts bytes and files below a folder; raises Overrun when they exceed a limit."""
    seen, size, waiting = 0, 0, [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                size += status.st_blocks * 512
                if stat.S_ISDIR(status.st_mode):
                    waiting.append(entry.path)
        except FileNotFoundError:  # removed meanwhile; the next count sees the rest
            continue
        except OSError as error:  # such as a path that is too long
            raise Overrun(f"its folder cannot be read: {error.strerror}") from None
        seen += len(entries)
        if size > disk:
            raise Overrun(f"more than {disk >> 20} MiB on disk")
        if seen > files:
            raise Overrun(f"more than {files} files")
