# SPDX-License-Identifier: GPL-2.0-or-later
"""What can become of a test, and how a report of pytest's turns into it.

Verdicts fail closed: a test is `lost` until something else is known about it.
"""

from __future__ import annotations

from typing import Literal, get_args

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

Outcome = Literal["pass", "fail", "crash", "timeout", "lost", "skip", "xfail", "xpass"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
BAD: frozenset[Outcome] = frozenset({"fail", "crash", "timeout", "lost"})

# The worse of two outcomes of one test's phases (setup, call, teardown) counts.
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


# Who does not have what a skipped test needs. "test": its author says so in words only; "unknown":
# read from a record of schema 1, which had no such field.
Lacking = Literal["driver", "kernel", "guest", "hardware", "test", "unknown"]


class SkipReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a test was skipped. Code reads `lacking` and `what`, people read `text`."""

    lacking: Lacking  # who does not have what the test needs
    what: str = ""  # what that is: attribute:size, program:fio, symbol:BLK_DEV_ZONED, topology:zns
    text: str  # one line for people
    more: int = 0  # how many other reasons there are; the test's `reason` has them all


class GuestUnavailable(Exception):
    """No guest comes up: a test was given up without a try."""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the run record."""

    __test__ = False  # for pytest: not a test class

    id: str  # suite/name
    suite: str
    driver: str
    console: str
    topology: str = ""  # the hardware that the test asked for; empty: that of the run
    features: tuple[str, ...] = ()  # of the driver, that the test is about
    outcome: Outcome
    seconds: float
    reason: str = ""  # why it did not pass, for people
    skip: SkipReason | None = None  # of a skipped test
    kernel_log: str = ""  # the splat, or the last lines of a dead guest
    guest: str = ""  # the guest's folder, relative to the run's

    @property
    def where(self) -> tuple[str, ...]:
        """Driver, console, and the hardware if the test asked for some."""
        return tuple(filter(None, (self.driver, self.console, self.topology)))

    @property
    def key(self) -> tuple[str, str]:
        """The same test of a driver in another run has the same."""
        return self.id, self.topology


def of_exception(error: BaseException) -> Outcome:
    """The outcome of a phase that ended with `error`."""
    if isinstance(error, (GuestPanicked, QemuDied)):
        return "crash"
    if isinstance(error, (GuestUnavailable, ImageDamaged)):
        return "lost"
    if isinstance(error, (CommandTimedOut, ConsoleLost, GuestHung, BootTimeout)):
        return "timeout"
    return "fail"


def worse(one: Outcome, other: Outcome) -> Outcome:
    """The outcome that counts when two phases of a test differ."""
    return max(one, other, key=_BADNESS.index)
