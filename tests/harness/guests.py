# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of a pytest process: one at a time, reused from test to test.

A guest is for one slot: a driver over a console on a topology. A test of another slot gets a fresh
guest. So does the test after a crash, a timeout, a splat (the kernel reports some things only once
per boot) or a change of the guest's state.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.images.boot import boot
from blockyard.images.errors import ConsoleLost, GuestError
from blockyard.images.hardware.topology import DEFAULT
from blockyard.images.log.kernel_log import without_stamps
from blockyard.images.log.splats import Splat, excerpts, find
from blockyard.images.machine import qemu_features
from blockyard.images.machine.machine import Machine
from blockyard.modules.driver import Driver, LoadFailed, NoDisk
from blockyard.modules.manifest import Pci
from blockyard.tests.harness import guest_state as state
from blockyard.tests.harness.outcomes import Boot, GuestUnavailable, Lacking, SkipReason
from blockyard.tests.harness.plan import Plan
from blockyard.tests.lib import nvme
from blockyard.tests.lib.abi import Surface

LOG_S = 10.0  # a line of the kernel log reaches the host within this, at accelerator scale 1
# After so many failed loads of a slot's driver its other tests are not tried; after so many failed
# boots no test is.
MAX_CONSECUTIVE_FAILURES = 3
MOST_WARNINGS, WARNING_LETTERS = 100, 300  # limits on the warnings of a boot in the record


@dataclass(frozen=True)
class Slot:
    """A driver, a console and a topology: tests of one slot share a guest."""

    driver: str
    console: str
    topology: str = ""  # the one that the tests request; empty: that of the run

    def __str__(self) -> str:
        return "-".join(filter(None, (self.driver, self.console, self.topology)))


@dataclass
class Guest:
    """A booted guest with the driver under test."""

    machine: Machine
    driver: Driver
    name: str  # its folder, relative to the run's
    boot: Boot
    state: frozenset[str] = frozenset()  # when the driver was loaded; see harness.guest_state
    # of the kernel's drivers that have been read, by name; shared by all guests
    surfaces: dict[str, Surface] = field(default_factory=dict)
    _scanned: int = 0  # the offset in the kernel log up to which it was scanned

    def begin(self, test: str) -> None:
        """Writes the test's name into the kernel log."""
        self.machine.log.begin()
        self.driver.console.log(f"<6>blockyard: begin {test}")

    def end(self, test: str, *, thorough: bool, last: bool) -> tuple[list[str], int]:
        """Changes of the guest's state, as lines, and the offset where the test's log ends.

        thorough: compare all settings. last: no other test will run in this guest.

        The end is a mark in the kernel log. The kernel keeps the order of its log, so everything
        from the test comes before the mark. Raises ConsoleLost when the mark does not arrive, or
        the error of a guest that died.
        """
        start = self.machine.log.size
        # the random word distinguishes this mark from that of an earlier test with this name
        line = f"blockyard: end {test} {secrets.token_hex(4)}"
        before = self.state if thorough else state.short(self.state)
        left = state.differences(before, state.read(self.driver, thorough=thorough))
        kmemleak = self.machine.setup.kernel.config.get("DEBUG_KMEMLEAK") == "y"
        # a leak of the last seconds is found after a later test
        if kmemleak and (leaks := state.leaks(self.driver, patient=last)):
            left.append(f"memory, by this test or one just before it: {leaks}")
        self.driver.console.log(f"<6>{line}")
        machine = self.machine
        limit_s = LOG_S * machine.setup.accelerator.scale
        end = machine.log.wait_for(line, start, limit_s, machine.watch, machine.time)
        if end is None:
            raise ConsoleLost(f"the kernel log stopped: no mark within {limit_s:.0f} s")
        return left, end

    def splats(self, end: int | None = None) -> list[Splat]:
        """The splats since the last call, up to the offset `end` (None: the log's end).

        Each part of the log is scanned once: the boot and the first load of the module count for
        the first test. Output of our own SysRq keys is ignored.
        """
        stop = self.machine.log.size if end is None else end
        start, self._scanned = self._scanned, stop
        return find(self.machine.log.unrequested(start, stop))


class NotServed(Exception):
    """A driver cannot be tested on a topology: its tests there are skipped."""

    def __init__(self, reason: SkipReason, details: str) -> None:
        super().__init__(details)
        self.reason = reason
        self.details = details  # the reason's text and the kernel's lines


@dataclass
class _Failures:
    """Consecutive failures."""

    count: int = 0
    last: Exception = field(default_factory=Exception)


class Guests:
    """Boots guests for slots, one at a time."""

    def __init__(self, plan: Plan, directory: Path, worker: str) -> None:
        self._plan = plan
        self._directory = directory  # of the run
        self._worker = worker
        self._env = plan.resolved()
        self._kernel = self._env.kernel
        self._stack = contextlib.ExitStack()
        self._slot: Slot | None = None
        self._guest: Guest | None = None
        self.booted = False  # whether any guest came up
        self._count = 0
        self._boots = _Failures()
        self._loads: dict[Slot, _Failures] = {}
        self._surfaces: dict[str, Surface] = {}
        self._lacking: dict[str, str] = {}  # topology → what QEMU lacks for it
        # (driver, topology) → why its tests are skipped
        self._not_served: dict[tuple[str, str], NotServed] = {}
        self._works: dict[str, bool] = {}  # whether a driver has a disk on the default topology

    def check(self, slot: Slot) -> None:
        """Raises NotServed when the slot's tests cannot run, as far as is known without a guest.

        The kernel lacks the driver, QEMU cannot emulate the topology, the driver's manifest
        excludes it, or an earlier test has found out.
        """
        if problem := self._plan.manifest(slot.driver).missing_from(self._kernel):
            raise _not_served("kernel", f"driver:{slot.driver}", problem)
        what = f"topology:{self._plan.hardware(slot.topology).name}"
        if slot.topology not in self._lacking:
            self._lacking[slot.topology] = qemu_features.missing_feature(
                self._plan.hardware(slot.topology), self._env.tools
            )
        if lacking := self._lacking[slot.topology]:
            raise _not_served("hardware", what, lacking)
        driver = self._plan.manifest(slot.driver)
        hardware = self._plan.hardware(slot.topology)
        if driver.on_hardware and (problem := driver.serves.problem(hardware)):
            text = f"{slot.driver} serves {problem} ([serves] in its manifest)"
            raise _not_served("driver", what, text)
        if known := self._not_served.get((slot.driver, slot.topology)):
            raise known

    def get(self, slot: Slot, test: str = "") -> Guest:
        """The guest of a slot with its driver loaded, booted if need be; test: its name.

        Raises the error of the boot or of the load. After three failed loads in a row the slot's
        other tests get the last error without a boot, after three failed boots all other tests get
        GuestUnavailable. Raises NotServed when the driver finds no disk on this topology but finds
        one on the default topology.
        """
        if self._guest is not None and self._slot == slot:
            return self._guest
        self.discard()
        if self._boots.count >= MAX_CONSECUTIVE_FAILURES:
            raise GuestUnavailable(
                f"{MAX_CONSECUTIVE_FAILURES} boots in a row failed, the last: {self._boots.last}"
            )
        loads = self._loads.setdefault(slot, _Failures())
        if loads.count >= MAX_CONSECUTIVE_FAILURES:
            raise loads.last
        try:
            with _counted(self._boots):
                booted, name = self._boot(slot)
            self.booted = True
            with _counted(loads):
                guest = self._load(slot, booted, name)
        except LoadFailed as failed:
            splats = find(booted.log.text())
            self.discard()
            self._note(slot, failed, splats, test)
            raise
        except BaseException:
            self.discard()
            raise
        self._slot, self._guest = slot, guest
        return guest

    def _note(self, slot: Slot, failed: LoadFailed, splats: list[Splat], test: str) -> None:
        """Remembers that a driver does not load on a topology; see `get`."""
        key = (slot.driver, slot.topology)
        where = self._plan.hardware(slot.topology).name
        if splats:
            failed.kernel_log = excerpts(splats)
            first = str(splats[0])
            text = f"{slot.driver} does not load on {where}, see {test}: {first}"
            self._not_served[key] = _not_served("driver", f"topology:{where}", text)
        elif isinstance(failed, NoDisk) and self._works_elsewhere(slot):
            _, _, lines = failed.what.partition("\n")
            text = f"{slot.driver} finds no disk on {where}, but finds one on {DEFAULT.name}"
            names = (slot.driver, *self._plan.manifest(slot.driver).modules)
            about = [line for line in lines.splitlines() if any(name in line for name in names)]
            why = f": {without_stamps(about[-1])}" if about else ""
            error = _not_served("driver", f"topology:{where}", f"{text}{why}", lines)
            self._not_served[key] = error
            raise error from None

    def _works_elsewhere(self, slot: Slot) -> bool:
        """Whether the driver finds a disk on the default topology; tried once per driver."""
        if self._plan.hardware(slot.topology).name == DEFAULT.name:
            return False
        if slot.driver not in self._works:
            plain = Slot(slot.driver, "serial", DEFAULT.name)
            try:
                self._load(plain, *self._boot(plain))
                self._works[slot.driver] = True
            except (GuestError, LoadFailed):
                self._works[slot.driver] = False
            finally:
                self.discard()
        return self._works[slot.driver]

    def _boot(self, slot: Slot) -> tuple[Machine, str]:
        self._count += 1
        name = f"guests/{slot}-{self._worker}{self._count}"
        directory = self._directory / name
        setup = self._env.setup(
            directory,
            topology=self._plan.hardware(slot.topology),
            ssh=slot.console == "ssh",
            start=self._plan.scope.start,
        )
        return self._stack.enter_context(boot(setup)), name

    def _load(self, slot: Slot, booted: Machine, name: str) -> Guest:
        manifest = self._plan.manifest(slot.driver).on(self._kernel)
        console = booted.console(slot.console)
        # after a hang, a test's clean-up would hang for as long again
        console.fail_fast = True
        driver = Driver(manifest, self._kernel, console)
        # after an Oops the kernel goes on with locks held, and commands would wait for them until
        # their deadlines
        driver.console.check("echo 1 > /proc/sys/kernel/panic_on_oops")
        driver.load()
        if isinstance(manifest.disks, Pci):
            # a disk that appeared later would count as a change of state by a test
            driver.console.check(nvme.settle_script(booted.setup.topology), nvme.APPEAR_S * 2)
        boot = boot_of(driver, name, booted.setup.topology.name)
        return Guest(booted, driver, name, boot, state.read(driver), self._surfaces)

    def discard(self) -> None:
        """Shuts down the current guest; the next test gets a fresh one."""
        self._guest = None
        self._slot = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()


def _not_served(lacking: Lacking, what: str, text: str, log: str = "") -> NotServed:
    reason = SkipReason(lacking=lacking, what=what, text=text)
    return NotServed(reason, f"{text}\n{log}".rstrip())


def boot_of(driver: Driver, guest: str, topology: str) -> Boot:
    """The record's entry for a guest in which the driver has just been loaded."""
    script = f"""
        read -r line < /proc/cmdline && echo "$line"
        dmesg --notime --level=emerg,alert,crit,err,warn | head -n {MOST_WARNINGS}"""
    command_line, *warnings = driver.console.check(script).splitlines() or [""]
    return Boot(
        guest=guest,
        topology=topology,
        command_line=command_line,
        warnings=tuple(line[:WARNING_LETTERS] for line in warnings if line.strip()),
    )


@contextlib.contextmanager
def _counted(failures: _Failures) -> Iterator[None]:
    """Counts failures in a row; a success ends the row."""
    try:
        yield
    except Exception as error:
        failures.count += 1
        failures.last = error
        raise
    failures.count = 0
