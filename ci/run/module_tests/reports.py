# SPDX-License-Identifier: GPL-2.0-or-later
"""The reports of a pytest inside an enclosure: lines of JSON, which are read as data only.

Test files share a process with it and can write any report. So only reports of their own tests are
accepted: `Reader` checks that each line is possible at its position and raises Forged otherwise.
This module reads no files and starts no processes.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.outcomes import Boot, Outcome, SkipReason

LINE_BYTES = 4 << 20  # limit for a report; an excerpt of a kernel log takes a hundredth of it
TESTS = 10_000  # limit for a module
NAME_LENGTH = 300

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]


class Forged(Exception):
    """A report that is not possible; the message says what is wrong with it."""


class Orders(msgspec.Struct, frozen=True):
    """What the pytest inside runs: written to a file for ci.run.module_tests.inside."""

    arguments: tuple[str, ...]
    memory: int  # bytes of address space of a process


class Facts(msgspec.Struct, frozen=True):
    """The user property of tests.harness.plugin."""

    outcome: Outcome
    reason: str = ""
    kernel_log: str = ""
    guest: Annotated[str, msgspec.Meta(pattern=r"^(guests/[A-Za-z0-9_][\w.-]*)?\Z")] = ""
    skip: SkipReason | None = None
    boot: Boot | None = None
    splat: bool = False
    booted: bool = False


class Reading(msgspec.Struct, frozen=True, tag="reading"):
    """A test file is about to be imported."""

    path: Annotated[str, msgspec.Meta(max_length=4096)]


class Test(msgspec.Struct, frozen=True, tag="test"):
    """A test was collected."""

    __test__ = False

    nodeid: Name
    name: Name
    driver: str
    console: str
    topology: str
    features: tuple[Name, ...] = ()

    @property
    def slot(self) -> Slot:
        """Driver, console and topology of the test."""
        return Slot(self.driver, self.console, self.topology)


class Problem(msgspec.Struct, frozen=True, tag="problem"):
    """A file that cannot be imported; defect: an internal error of pytest or a plugin."""

    text: str
    defect: bool = False


class Started(msgspec.Struct, frozen=True, tag="started"):
    """A test starts."""

    nodeid: Name


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """pytest's report of a test's setup, call or teardown; "???" after the death of a worker."""

    nodeid: Name
    when: Literal["setup", "call", "teardown", "???"]
    outcome: Literal["passed", "failed", "skipped"]
    duration: Seconds
    text: str = ""
    facts: Facts | None = None


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The last line: pytest's exit code."""

    code: int


Line = Reading | Test | Problem | Started | Phase | Finished
ORDER = {"setup": 0, "call": 1, "teardown": 2, "???": 2}


@dataclass
class Reader:
    """Reads and checks the reports, line by line."""

    expected: Collection[str]  # ids of the tests that run; none: tests are only collected
    tests: dict[str, Test] = field(default_factory=dict)
    finished: Finished | None = None
    reading: str = ""  # the last file whose import started
    running: dict[str, None] = field(default_factory=dict)  # ids of running tests
    _phases: dict[str, int] = field(default_factory=dict)  # id → the last phase that was reported
    _started: set[str] = field(default_factory=set)

    def read(self, data: bytes) -> Line:
        """The report in a line; raises Forged for one that is not possible."""
        if self.finished:
            raise Forged("a report after the last one")
        try:
            line: Line = msgspec.json.decode(data, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Forged(f"a report that cannot be read: {error}") from None
        match line:
            case Reading():
                self.reading = line.path
            case Test():
                self._add(line)
            case Started():
                self._start(line.nodeid)
            case Phase():
                self._follow(line)
            case Finished():
                self.finished = line
        return line

    def _add(self, test: Test) -> None:
        if self.expected or test.nodeid in self.tests or len(self.tests) >= TESTS:
            raise Forged(f"an unexpected test: {test.nodeid}")
        words = (test.nodeid, test.name, test.driver, test.console, test.topology, *test.features)
        if not all(word.isprintable() for word in words):
            raise Forged(f"a test name with control characters: {test.nodeid!r}")
        self.tests[test.nodeid] = test

    def _start(self, nodeid: str) -> None:
        if nodeid not in self.expected or nodeid in self._started:
            raise Forged(f"an unexpected start of {nodeid}")
        self._started.add(nodeid)
        self.running[nodeid] = None

    def _follow(self, phase: Phase) -> None:
        if phase.nodeid not in self.expected:
            raise Forged(f"an outcome of {phase.nodeid}, which is not a test of this module")
        if not phase.facts and phase.when != "???":  # pytest-xdist reports this phase itself
            raise Forged(f"an outcome of {phase.nodeid} without facts")
        if phase.facts and phase.facts.boot and phase.facts.boot.guest != phase.facts.guest:
            raise Forged(f"a boot of another guest than that of {phase.nodeid}")
        position = ORDER[phase.when]
        if position <= self._phases.get(phase.nodeid, -1):
            raise Forged(f"a second outcome of {phase.nodeid}")
        self._phases[phase.nodeid] = position
        if position == ORDER["teardown"]:
            self.running.pop(phase.nodeid, None)
