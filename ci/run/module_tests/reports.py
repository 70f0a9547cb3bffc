# SPDX-License-Identifier: GPL-2.0-or-later
"""What a pytest that runs inside an enclosure reports: lines of JSON, read as data only.

The test files that it runs share its process and can write what they like. So nothing of it is
believed but what its own tests came to: `Reader` takes each line for what it can be at that moment,
and raises Forged for any other. It is pure, and knows neither processes nor files.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.outcomes import Boot, Outcome, SkipReason

LINE_BYTES = 4 << 20  # of a report; a kernel log's excerpt is a hundredth of it
TESTS = 10_000  # of one module
NAME_LENGTH = 300

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_LENGTH)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e7)]


class Forged(Exception):
    """A line that cannot be, with what is wrong with it."""


class Orders(msgspec.Struct, frozen=True):
    """What a pytest inside is to do: written to a file for ci.run.module_tests.inside."""

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
    """A file of tests is about to be imported."""

    path: Annotated[str, msgspec.Meta(max_length=4096)]


class Test(msgspec.Struct, frozen=True, tag="test"):
    """One test was collected."""

    __test__ = False

    nodeid: Name
    name: Name
    driver: str
    console: str
    topology: str
    features: tuple[Name, ...] = ()

    @property
    def slot(self) -> Slot:
        """What its guest is for."""
        return Slot(self.driver, self.console, self.topology)


class Problem(msgspec.Struct, frozen=True, tag="problem"):
    """A file that cannot be read; defect: pytest or a plugin broke down."""

    text: str
    defect: bool = False


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """A test begins."""

    nodeid: Name


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """pytest's report of a test's set-up, call or tear-down; "???" of one whose worker died."""

    nodeid: Name
    when: Literal["setup", "call", "teardown", "???"]
    outcome: Literal["passed", "failed", "skipped"]
    duration: Seconds
    text: str = ""
    facts: Facts | None = None


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """The last line: pytest's exit code."""

    code: int


Line = Reading | Test | Problem | Begun | Phase | Ended
ORDER = {"setup": 0, "call": 1, "teardown": 2, "???": 2}


@dataclass
class Reader:
    """Follows the reports from line to line."""

    expected: Collection[str]  # ids of the tests that are to run; none: they are being collected
    tests: dict[str, Test] = field(default_factory=dict)
    ended: Ended | None = None
    reading: str = ""  # the file that was last begun
    running: dict[str, None] = field(default_factory=dict)  # ids of tests under way
    _phases: dict[str, int] = field(default_factory=dict)  # id → the last one that was reported
    _begun: set[str] = field(default_factory=set)

    def read(self, data: bytes) -> Line:
        """One line; raises Forged for what cannot be."""
        if self.ended:
            raise Forged("a report behind the last one")
        try:
            line: Line = msgspec.json.decode(data, type=Line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Forged(f"a report that cannot be read: {error}") from None
        match line:
            case Reading():
                self.reading = line.path
            case Test():
                self._add(line)
            case Begun():
                self._begin(line.nodeid)
            case Phase():
                self._follow(line)
            case Ended():
                self.ended = line
        return line

    def _add(self, test: Test) -> None:
        if self.expected or test.nodeid in self.tests or len(self.tests) >= TESTS:
            raise Forged(f"a test too many: {test.nodeid}")
        words = (test.nodeid, test.name, test.driver, test.console, test.topology, *test.features)
        if not all(word.isprintable() for word in words):
            raise Forged(f"a test whose name cannot be printed: {test.nodeid!r}")
        self.tests[test.nodeid] = test

    def _begin(self, nodeid: str) -> None:
        if nodeid not in self.expected or nodeid in self._begun:
            raise Forged(f"the begin of {nodeid}, which is not to run")
        self._begun.add(nodeid)
        self.running[nodeid] = None

    def _follow(self, phase: Phase) -> None:
        if phase.nodeid not in self.expected:
            raise Forged(f"an outcome of {phase.nodeid}, which is no test of this module")
        if not phase.facts and phase.when != "???":  # which pytest-xdist reports by itself
            raise Forged(f"an outcome of {phase.nodeid} without facts")
        if phase.facts and phase.facts.boot and phase.facts.boot.guest != phase.facts.guest:
            raise Forged(f"a boot of a guest that {phase.nodeid} did not have")
        place = ORDER[phase.when]
        if place <= self._phases.get(phase.nodeid, -1):
            raise Forged(f"a second outcome of {phase.nodeid}")
        self._phases[phase.nodeid] = place
        if place == ORDER["teardown"]:
            self.running.pop(phase.nodeid, None)
