# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of one pytest process: one at a time, kept from test to test while it is well.

A guest serves one driver over one console. The next test of another pair, or the first after a
crash or a time-out, gets a fresh one.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from images.errors import GuestError
from images.machine import Machine, machine
from images.splats import Splat, find
from modules import manifest
from modules.driver import Driver
from tests.plan import Plan

LOG_S = 10.0  # the kernel's log reaches the host within this, at accelerator scale 1
BOOTS_THAT_MAY_FAIL = 3  # in a row, before the run is given up


class RunGivenUp(GuestError):
    """Guests do not boot any more; testing on makes no sense."""


@dataclass(frozen=True)
class Slot:
    """What a guest is for."""

    driver: str
    console: str

    def __str__(self) -> str:
        return f"{self.driver}-{self.console}"


@dataclass
class Guest:
    """A booted guest with the driver that is tested in it."""

    machine: Machine
    driver: Driver
    name: str  # its folder, relative to the run's

    def mark_log(self, text: str) -> int:
        """Writes a line into the kernel log and returns where the log goes on after it.

        The kernel keeps the order of its log, so everything that happened before the mark stands
        before it. A log that does not arrive raises the console's error or what the watch finds.
        """
        start = self.machine.log.size
        # the random word tells this mark from an earlier test's of the same name
        line = f"blockyard: {text} {secrets.token_hex(4)}"
        self.driver.console.check(f"echo '<6>{line}' > /dev/kmsg", timeout_s=20)
        scale = self.machine.setup.accelerator.scale
        end = self.machine.log.wait_for(line, start, LOG_S * scale)
        return self.machine.log.size if end is None else end

    def splats(self, start: int, end: int | None = None) -> list[Splat]:
        """What the kernel complained about in that part of its log."""
        return find(self.machine.log.text(start, end))


class Guests:
    """Boots guests for slots; ends them when it is closed."""

    def __init__(self, plan: Plan, worker: str) -> None:
        self._plan = plan
        self._worker = worker
        self._kernel = plan.load_kernel()
        self._stack = contextlib.ExitStack()
        self._slot: Slot | None = None
        self._guest: Guest | None = None
        self._count = 0
        self._failed_boots = 0

    def manifest_problem(self, slot: Slot) -> str:
        """Why this kernel has no such driver; empty when it has."""
        return manifest.load(slot.driver).missing_from(self._kernel)

    def get(self, slot: Slot) -> Guest:
        """The guest of a slot, booted if need be; raises GuestError when it does not boot."""
        if self._guest is not None and self._slot == slot:
            return self._guest
        self.discard()
        if self._failed_boots >= BOOTS_THAT_MAY_FAIL:
            raise RunGivenUp(f"{self._failed_boots} guests in a row did not boot: giving up")
        self._count += 1
        name = f"guests/{slot}-{self._worker}{self._count}"
        setup = self._plan.setup(
            self._kernel, Path(self._plan.directory) / name, ssh=slot.console == "ssh"
        )
        try:
            guest_machine = self._stack.enter_context(machine(setup))
            console = guest_machine.console(slot.console)
        except GuestError:
            self._failed_boots += 1
            self.discard()
            raise
        self._failed_boots = 0
        driver = Driver(manifest.load(slot.driver), self._kernel, console)
        self._slot = slot
        self._guest = Guest(guest_machine, driver, name)
        driver.load()
        return self._guest

    def discard(self) -> None:
        """Ends the guest at hand; the next test gets a fresh one."""
        self._guest = None
        self._slot = None
        self._stack.close()
        self._stack = contextlib.ExitStack()
