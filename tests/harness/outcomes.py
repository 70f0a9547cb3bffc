# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes of tests, and how they follow from pytest's reports.

A test is `lost` until a report says otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

from blockyard.images.errors import (
    BootTimeout,
    CommandTimedOut,
    ConsoleLost,
    GuestHung,
    GuestPanicked,
    ImageDamaged,
    QemuDied,
)
from blockyard.kernel.host.described import about

Outcome = Literal["pass", "fail", "crash", "timeout", "lost", "skip", "xfail", "xpass"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
BAD: frozenset[Outcome] = frozenset({"fail", "crash", "timeout", "lost"})

# The worst outcome of a test's phases (setup, call, teardown) counts.
_BADNESS: tuple[Outcome, ...] = (
    "pass",
    "skip",
    "xfail",
    "xpass",
    "fail",
    "timeout",
    "crash",
    "lost",
)


# What lacks the requirement of a skipped test. "test": its author gave a text only; "unknown": the
# record is of schema 1, which had no such field.
Lacking = Literal["driver", "kernel", "guest", "hardware", "test", "unknown"]


class SkipReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a test was skipped. Code reads `lacking` and `what`, people read `text`."""

    lacking: Annotated[
        Lacking, about("who does not have what the test needs; `test`: a text of its author's")
    ]
    what: Annotated[
        str, about("what that is, such as `attribute:size`, `program:fio`, `topology:zns`")
    ] = ""
    text: Annotated[str, about("one line for people")]
    more: Annotated[int, about("how many other reasons there are; `reason` has them all")] = 0


class Boot(msgspec.Struct, frozen=True, kw_only=True):
    """A guest that booted and loaded its driver."""

    guest: Annotated[str, about("its folder in the run's")]
    topology: Annotated[str, about("its hardware")]
    command_line: Annotated[str, about("the kernel's (/proc/cmdline)")]
    warnings: Annotated[
        tuple[str, ...],
        about("kernel messages of level warning or worse until then, without times"),
    ] = ()


class GuestUnavailable(Exception):
    """No guest boots, so a test was not tried."""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one test: an object of the run record."""

    __test__ = False  # for pytest: not a test class

    id: Annotated[str, about("`suite/name`, with the test's own parameters in parentheses")]
    suite: Annotated[str, about("its folder in tests/suites, or a module's folder")]
    driver: Annotated[str, about("the driver under test")]
    console: Annotated[str, about("`serial` or `ssh`")]
    topology: Annotated[
        str, about("the hardware that the test requests; empty: that of the run")
    ] = ""
    features: Annotated[tuple[str, ...], about("of the driver, that the test is about")] = ()
    outcome: Annotated[Outcome, about("see Outcomes")]
    started: Annotated[str, about("UTC, ISO 8601; empty when it never began")] = ""
    seconds: Annotated[
        float, about("with set-up and tear-down, and the boot for a guest's first test")
    ]
    reason: Annotated[str, about("why it did not pass, for people; empty for a pass")] = ""
    skip: Annotated[SkipReason | None, about("of a skipped test")] = None
    kernel_log: Annotated[str, about("the splat, or the last lines of a dead guest")] = ""
    guest: Annotated[str, about("the guest's folder in the run's")] = ""
    rerun: Annotated[str, about("the command that runs a bad test again")] = ""

    @property
    def where(self) -> tuple[str, ...]:
        """Driver, console, and the topology if the test requests one."""
        return tuple(filter(None, (self.driver, self.console, self.topology)))

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the test of a driver in any run."""
        return self.id, self.topology


def of_exception(error: BaseException) -> Outcome:
    """The outcome of a phase that raised `error`."""
    if isinstance(error, (GuestPanicked, QemuDied)):
        return "crash"
    if isinstance(error, (GuestUnavailable, ImageDamaged)):
        return "lost"
    if isinstance(error, (CommandTimedOut, ConsoleLost, GuestHung, BootTimeout)):
        return "timeout"
    return "fail"


def worse(first: Outcome, second: Outcome) -> Outcome:
    """The worse of two outcomes."""
    return max(first, second, key=_BADNESS.index)
