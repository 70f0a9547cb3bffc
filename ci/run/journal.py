# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's journal: `results/<run>/journal.jsonl`, with lines for each start and end of a test.

Outcomes in it survive whatever ends the run (SIGKILL, no memory, no power, a full disk), and
`./inv test --resume` continues from there. The first line describes the run; an incomplete last
line is ignored. The process that runs the tests holds a lock on the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from blockyard.ci.run import upgrade
from blockyard.ci.run.record import BYTES, UNREADABLE, Run
from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note
from blockyard.tests.harness.outcomes import Boot, CaseResult

FILE = "journal.jsonl"
FORMAT = 2  # format 1 can be read as well, see ci.run.upgrade
RECORDS = ("run.json", "junit.xml")  # see ci.run.record
SYNC_S = 1.0  # a power failure loses at most so much of a run; a flush takes 1 to 30 ms
ATTEMPTS, ATTEMPT_S = 5, 0.02  # to get the lock, which is_running takes for a moment


class Planned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A test of the run."""

    name: str  # with its slot, such as block/size[null_blk-ssh]
    id: str
    suite: str
    driver: str
    console: str
    topology: str = ""
    features: tuple[str, ...] = ()

    def lost(self, reason: str) -> CaseResult:
        """The result of the test if it has not reported."""
        return CaseResult(
            id=self.id,
            suite=self.suite,
            driver=self.driver,
            console=self.console,
            topology=self.topology,
            features=self.features,
            outcome="lost",
            seconds=0.0,
            reason=reason,
        )


class Header(msgspec.Struct, frozen=True, kw_only=True, tag="run", tag_field="line"):
    """The first line."""

    format: int = FORMAT
    requested: dict[str, str] = msgspec.field(name="asked")  # the command's options
    inputs: dict[str, str]  # hashes and cache keys of what outcomes depend on besides
    run: Run  # the record before the first test
    tests: tuple[Planned, ...]


class Resumed(msgspec.Struct, frozen=True, tag="resumed", tag_field="line"):
    """The run was resumed."""

    at: str  # UTC


class Started(msgspec.Struct, frozen=True, tag="started", tag_field="line"):
    """A test started."""

    test: str  # its name
    seconds: float  # since the run started or was resumed


class Finished(msgspec.Struct, frozen=True, tag="finished", tag_field="line"):
    """A test finished."""

    test: str
    seconds: float
    booted: bool  # whether any guest has booted so far
    result: CaseResult


class Booted(msgspec.Struct, frozen=True, tag="booted", tag_field="line"):
    """A guest booted and loaded its driver."""

    boot: Boot


Line = Header | Resumed | Started | Finished | Booted


class Journal:
    """The journal of the current run, which is locked until `close`.

    A line that cannot be written is kept in memory and written with the next line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = time.monotonic()
        self._synced = self._opened
        self._pending = b""  # lines that are not in the file yet
        self._length = 0  # bytes of complete lines in the file
        self._complained = False
        self._file = -1
        with self._trying():
            self._file = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
            self._lock()

    def _lock(self) -> None:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(ATTEMPT_S)
        return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def create(cls, directory: Path, header: Header) -> Self:
        """Creates the journal of a new run in its folder."""
        journal = cls(directory / FILE)
        journal._write(header)
        return journal

    @classmethod
    def reopen(cls, directory: Path, past: Past, at: str) -> Self:
        """Opens the journal of a run that is resumed after `past`; at: the time, UTC.

        Renames the record of the interrupted run: from now on the journal is newer.
        Raises UsageError when the journal has grown since it was read.
        """
        journal = cls(directory / FILE)
        if read(directory / FILE).length != past.length:
            raise UsageError(
                f"the run in {directory} was resumed by another process", hint="try again"
            )
        journal._length = past.length
        journal._write(Resumed(at))
        for name in RECORDS:
            with contextlib.suppress(OSError):  # a run that was killed has no record
                (directory / name).rename(directory / f"{name}.interrupted")
        return journal

    def started(self, test: str) -> None:
        """Adds the start of a test."""
        self._write(Started(test, self._seconds()))

    def booted(self, boot: Boot) -> None:
        """Adds the boot of a guest."""
        self._write(Booted(boot))

    def finished(self, test: str, result: CaseResult, *, booted: bool) -> None:
        """Adds the result of a test; booted: whether any guest has booted so far."""
        self._write(Finished(test, self._seconds(), booted, result))

    def close(self) -> None:
        """Writes the pending lines, closes the file and releases the lock."""
        self._flush()
        if self._file >= 0:
            with self._trying():
                os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def _seconds(self) -> float:
        return round(time.monotonic() - self._opened, 3)

    def _write(self, line: Line) -> None:
        self._pending += msgspec.json.encode(line) + b"\n"
        self._flush()
        if time.monotonic() - self._synced >= SYNC_S and not self._pending:
            with self._trying():
                os.fdatasync(self._file)
            self._synced = time.monotonic()

    def _flush(self) -> None:
        if self._file < 0:
            return
        with self._trying():
            os.ftruncate(self._file, self._length)  # remove the rest of a failed write
            written = 0
            while written < len(self._pending):
                written += os.write(self._file, self._pending[written:])
            self._length += written
            self._pending = b""

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            os.close(self._file)
            raise still_running(self._path.parent) from None
        except OSError as error:
            if not self._complained:
                self._complained = True
                note(f"cannot write {self._path}: {error.strerror}; outcomes are kept in memory")


@dataclass(frozen=True)
class Past:
    """The content of a journal."""

    header: Header
    resumed: tuple[str, ...]  # times, UTC
    results: dict[str, CaseResult]  # of finished tests, by name
    under_way: tuple[str, ...]  # names of tests that started and did not finish
    seconds: float
    booted: bool
    boots: tuple[Boot, ...]
    length: int  # of the journal's complete lines, in bytes

    @property
    def conclusive(self) -> dict[str, CaseResult]:
        """The results except those of lost tests, which run again; by name."""
        return {name: test for name, test in self.results.items() if test.outcome != "lost"}

    def resumed_at(self, at: str) -> Run:
        """The record when the run is resumed; at: the time, UTC."""
        return msgspec.structs.replace(
            self.header.run,
            seconds=self.seconds,
            booted=self.booted,
            boots=self.boots,
            resumed=(*self.resumed, at),
        )

    def record(self) -> Run:
        """The record of the run, which did not write one itself."""
        tests = tuple(
            self.results.get(test.name) or test.lost(why_lost(test.name in self.under_way))
            for test in self.header.tests
        )
        return msgspec.structs.replace(
            self.header.run,
            seconds=self.seconds,
            tests=tests,
            booted=self.booted,
            boots=self.boots,
            interrupted=True,
            under_way=self.under_way,
            resumed=self.resumed,
        )


def why_lost(under_way: bool) -> str:
    """The reason of a lost test; under_way: whether it had started."""
    return f"the run ended {'during' if under_way else 'before'} this test"


def read(path: Path) -> Past:
    """A journal up to its first incomplete line; raises UsageError for any other file."""
    try:
        data = untrusted.read_input(path, "the journal", BYTES)
        first, *rest = data.split(b"\n")[:-1] or [b""]
        header = _header(first)
    except UNREADABLE as error:
        raise UsageError(f"{path} is not the journal of a run: {error}") from None
    if not header:
        raise UsageError(
            f"{path} is a journal of another format, expected 1 to {FORMAT}",
            hint="a newer Blockyard wrote it: update this one",
        )
    old = _format(first) == 1
    lines: list[Line] = []
    length = len(first) + 1
    for line in rest:
        try:
            lines.append(_line(line, old=old))
        except UNREADABLE:  # after a power failure, blocks of a file may be missing
            break
        length += len(line) + 1
    return _past(header, lines, length)


class _Format(msgspec.Struct):
    format: int


def _format(line: bytes) -> int:
    return msgspec.json.decode(line, type=_Format).format


def _header(line: bytes) -> Header | None:
    """The first line; None for an unknown format. Raises the errors in UNREADABLE."""
    if _format(line) == 1:
        return msgspec.convert(upgrade.journal_header(msgspec.json.decode(line, type=dict)), Header)
    return msgspec.json.decode(line, type=Header) if _format(line) == FORMAT else None


def _line(line: bytes, *, old: bool) -> Line:
    if old:
        line = msgspec.json.encode(upgrade.journal_line(msgspec.json.decode(line, type=dict)))
    decoded: Line = msgspec.json.decode(line, type=Line)
    return decoded


def still_running(directory: Path) -> UsageError:
    """The error for the folder of a run whose process still lives."""
    return UsageError(f"the run in {directory} is still running")


def is_running(directory: Path) -> bool:
    """Whether a process holds the lock on the journal in a run's folder."""
    try:
        with untrusted.open_regular(directory, FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (Failure, OSError):  # there is no journal, or its file system has no locks
        return False
    return False


def read_header(path: Path) -> Header | None:
    """The first line of a journal; None for any other file."""
    try:
        with untrusted.open_regular(path.parent, path.name) as file:
            return _header(file.readline(BYTES))
    except (Failure, *UNREADABLE):
        return None


def _past(header: Header, lines: list[Line], length: int) -> Past:
    resumed: list[str] = []
    boots: list[Boot] = []
    results: dict[str, CaseResult] = {}
    under_way: dict[str, None] = {}
    seconds, before, booted = 0.0, 0.0, False
    for line in lines:
        match line:
            case Resumed(at):
                resumed.append(at)
                under_way.clear()
                before = seconds
            case Started(test, at_s):
                under_way[test] = None
                seconds = before + at_s
            case Finished(test, at_s, came_up, result):
                under_way.pop(test, None)
                results[test] = result
                seconds = before + at_s
                booted |= came_up
            case Booted(boot):
                boots.append(boot)
            case Header():
                continue
    return Past(
        header=header,
        resumed=tuple(resumed),
        results=results,
        under_way=tuple(under_way),
        seconds=round(seconds, 1),
        booted=booted,
        boots=tuple(boots),
        length=length,
    )
