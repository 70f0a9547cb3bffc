# SPDX-License-Identifier: GPL-2.0-or-later
"""A run's journal: `results/<run>/journal.jsonl`, a line for each test that began or ended.

Nothing that ends the run (SIGKILL, no memory, no power, a full disk) takes an outcome away that
stands in it, and `./inv test --resume` goes on from there. The first line says what the run is; a
last line that was cut off is no line. The run that writes it holds a lock on it.
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
FORMAT = 2  # 1 is read, too, see ci.run.upgrade
RECORDS = ("run.json", "junit.xml")  # see ci.run.record
SYNC_S = 1.0  # at most so much of a run is lost with the power; a flush to a disk takes 1 to 30 ms

LOOKS, LOOK_S = 5, 0.02  # who looks whether a run goes on (is_going_on) is done after a moment


class Planned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A test that was to run."""

    name: str  # with its slot, such as block/size[null_blk-ssh]
    id: str
    suite: str
    driver: str
    console: str
    topology: str = ""
    features: tuple[str, ...] = ()

    def lost(self, reason: str) -> CaseResult:
        """Its outcome when it never reported."""
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
    asked: dict[str, str]  # the command's options
    inputs: dict[str, str]  # what outcomes depend on besides: hashes and names in the cache
    run: Run  # what the record has from the beginning; no tests
    tests: tuple[Planned, ...]


class Resumed(msgspec.Struct, frozen=True, tag="resumed", tag_field="line"):
    """The run was taken up again."""

    at: str  # UTC


class Started(msgspec.Struct, frozen=True, tag="started", tag_field="line"):
    """A test began."""

    test: str  # its name
    seconds: float  # since the run began, or was taken up again


class Finished(msgspec.Struct, frozen=True, tag="finished", tag_field="line"):
    """A test ended."""

    test: str
    seconds: float
    booted: bool  # whether any guest has come up so far
    result: CaseResult


class Booted(msgspec.Struct, frozen=True, tag="booted", tag_field="line"):
    """A guest came up, with its driver loaded."""

    boot: Boot


Line = Header | Resumed | Started | Finished | Booted


class Journal:
    """The journal of a run that is going on.

    A line that cannot be written is kept, and tried again with the next one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = time.monotonic()
        self._synced = self._begun
        self._waiting = b""  # lines that are not in the file yet
        self._length = 0  # of the file: up to here its lines are whole
        self._complained = False
        self._file = -1
        with self._trying():
            self._file = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644
            )
            self._lock()

    def _lock(self) -> None:
        for _ in range(LOOKS):
            with contextlib.suppress(BlockingIOError):
                return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(LOOK_S)
        return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @classmethod
    def begun(cls, directory: Path, header: Header) -> Self:
        """The journal of a new run, in its folder."""
        journal = cls(directory / FILE)
        journal._write(header)
        return journal

    @classmethod
    def reopened(cls, directory: Path, past: Past, at: str) -> Self:
        """That of a run which goes on after `past`; at: the time, UTC.

        The record as it was at the interrupt is put aside: from now on the journal has more.
        Raises UsageError when the run has gone on without us.
        """
        journal = cls(directory / FILE)
        if read(directory / FILE).length != past.length:
            raise UsageError(f"{directory} has changed meanwhile", hint="start again")
        journal._length = past.length
        journal._write(Resumed(at))
        for name in RECORDS:
            with contextlib.suppress(OSError):  # a run that was killed has none
                (directory / name).rename(directory / f"{name}.interrupted")
        return journal

    def started(self, test: str) -> None:
        """A test began."""
        self._write(Started(test, self._seconds()))

    def booted(self, boot: Boot) -> None:
        """A guest came up."""
        self._write(Booted(boot))

    def finished(self, test: str, result: CaseResult, *, booted: bool) -> None:
        """A test ended."""
        self._write(Finished(test, self._seconds(), booted, result))

    def close(self) -> None:
        """Writes what is there to be written, and frees the lock."""
        self._flush()
        if self._file >= 0:
            with self._trying():
                os.fsync(self._file)
            os.close(self._file)
            self._file = -1

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begun, 3)

    def _write(self, line: Line) -> None:
        self._waiting += msgspec.json.encode(line) + b"\n"
        self._flush()
        if time.monotonic() - self._synced >= SYNC_S and not self._waiting:
            with self._trying():
                os.fdatasync(self._file)
            self._synced = time.monotonic()

    def _flush(self) -> None:
        if self._file < 0:
            return
        with self._trying():
            os.ftruncate(self._file, self._length)  # what a failed write left
            written = 0
            while written < len(self._waiting):
                written += os.write(self._file, self._waiting[written:])
            self._length += written
            self._waiting = b""

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            os.close(self._file)
            raise going_on(self._path.parent) from None
        except OSError as error:
            if not self._complained:
                self._complained = True
                note(f"cannot write {self._path}: {error.strerror}; outcomes are kept in memory")


@dataclass(frozen=True)
class Past:
    """What a journal says of a run that has ended, or does not write to it at this moment."""

    header: Header
    resumed: tuple[str, ...]  # when, UTC
    results: dict[str, CaseResult]  # of the tests that ended, by name
    under_way: tuple[str, ...]  # names of the tests that began and did not end
    seconds: float
    booted: bool
    boots: tuple[Boot, ...]
    length: int  # of the journal's whole lines, in bytes

    @property
    def known(self) -> dict[str, CaseResult]:
        """The results that need not be found out again: a lost test has told nothing."""
        return {name: one for name, one in self.results.items() if one.outcome != "lost"}

    def begun_again(self, at: str) -> Run:
        """The record as it is when the run is taken up again; at: the time, UTC."""
        return msgspec.structs.replace(
            self.header.run,
            seconds=self.seconds,
            booted=self.booted,
            boots=self.boots,
            resumed=(*self.resumed, at),
        )

    def record(self) -> Run:
        """The record of the run, which ended before it could write its own."""
        tests = tuple(
            self.results.get(one.name) or one.lost(why_lost(one.name in self.under_way))
            for one in self.header.tests
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
    """The reason of a test that never reported."""
    return f"the run ended {'during' if under_way else 'before'} this test"


def read(path: Path) -> Past:
    """A journal as far as it goes; raises UsageError for a file that is none."""
    try:
        data = untrusted.read_input(path, "the journal", BYTES)
        first, *rest = data.split(b"\n")[:-1] or [b""]
        header = _header(first)
    except UNREADABLE as error:
        raise UsageError(f"{path} is not the journal of a run: {error}") from None
    if not header:
        raise UsageError(
            f"{path} is a journal of another format, expected 1 to {FORMAT}",
            hint="it is of a newer Blockyard: update this one",
        )
    old = _format(first) == 1
    lines: list[Line] = []
    length = len(first) + 1
    for line in rest:
        try:
            lines.append(_line(line, old=old))
        except UNREADABLE:  # the power went: blocks of a file may be missing
            break
        length += len(line) + 1
    return _past(header, lines, length)


class _Format(msgspec.Struct):
    format: int


def _format(line: bytes) -> int:
    return msgspec.json.decode(line, type=_Format).format


def _header(line: bytes) -> Header | None:
    """The first line; None when its format is not known. Raises what UNREADABLE has."""
    if _format(line) == 1:
        return msgspec.convert(upgrade.journal_header(msgspec.json.decode(line, type=dict)), Header)
    return msgspec.json.decode(line, type=Header) if _format(line) == FORMAT else None


def _line(line: bytes, *, old: bool) -> Line:
    if old:
        line = msgspec.json.encode(upgrade.journal_line(msgspec.json.decode(line, type=dict)))
    found: Line = msgspec.json.decode(line, type=Line)
    return found


def going_on(directory: Path) -> UsageError:
    """The error for the folder of a run that has not ended."""
    return UsageError(f"{directory} is of a run that goes on now")


def is_going_on(directory: Path) -> bool:
    """Whether a run writes to the journal in its folder at this moment."""
    try:
        with untrusted.open_regular(directory, FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (Failure, OSError):  # there is none, or its file system has no locks
        return False
    return False


def read_header(path: Path) -> Header | None:
    """What a run is; None when the file is none of its kind."""
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
