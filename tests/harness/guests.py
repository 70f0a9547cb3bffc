# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests of one pytest process: one at a time, kept from test to test while it is well.

A guest serves one driver over one console on one kind of hardware. The next test of another slot
gets a fresh one, and so does the first after anything went wrong with the guest: a crash, a
time-out, a splat (the kernel reports some things once per boot only), something left behind.
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
from blockyard.images.log.splats import Splat, find
from blockyard.images.machine import qemu_features
from blockyard.images.machine.machine import Machine
from blockyard.modules.driver import Driver, LoadFailed, NoDisk
from blockyard.modules.manifest import Pci
from blockyard.tests.harness import guest_state as state
from blockyard.tests.harness.outcomes import Boot, GuestUnavailable, Lacking, SkipReason
from blockyard.tests.harness.plan import Plan
from blockyard.tests.lib import nvme
from blockyard.tests.lib.abi import Surface

LOG_S = 10.0  # the kernel's log reaches the host within this, at accelerator scale 1
# In a row: loads of a slot's driver, before its other tests are not tried any more; boots of any
# guest, before nothing is.
MAX_CONSECUTIVE_FAILURES = 3
MOST_WARNINGS, WARNING_LETTERS = 100, 300  # of a boot that the record has


@dataclass(frozen=True)
class Slot:
    """What a guest is for."""

    driver: str
    console: str
    topology: str = ""  # the hardware that its tests ask for; empty: that of the run

    def __str__(self) -> str:
        return "-".join(filter(None, (self.driver, self.console, self.topology)))


@dataclass
class Guest:
    """A booted guest with the driver that is tested in it."""

    machine: Machine
    driver: Driver
    name: str  # its folder, relative to the run's
    boot: Boot
    state: frozenset[str] = (
        frozenset()
    )  # as it was with the driver loaded, see tests.harness.guest_state
    # of the kernel's drivers, once they were read; the same for all guests
    surfaces: dict[str, Surface] = field(default_factory=dict)
    _judged: int = 0  # up to here the kernel log has been looked at

    def begin(self, test: str) -> None:
        """Writes the test's name into the kernel log, for its readers."""
        self.machine.log.begin()
        self.driver.console.log(f"<6>blockyard: begin {test}")

    def end(self, test: str, *, thorough: bool, last: bool) -> tuple[list[str], int]:
        """What the test left behind, in words, and where its log ends; see harness.guest_state.

        last: no other test will run in this guest.

        The end is a mark in the kernel log. The kernel keeps the order of its log, so everything
        that happened in the test stands before it. Raises ConsoleLost when the mark does not
        arrive, or what the watch finds.
        """
        start = self.machine.log.size
        # the random word tells this mark from an earlier test's of the same name
        line = f"blockyard: end {test} {secrets.token_hex(4)}"
        before = self.state if thorough else state.short(self.state)
        left = state.differences(before, state.read(self.driver, thorough=thorough))
        hunted = self.machine.setup.kernel.config.get("DEBUG_KMEMLEAK") == "y"
        # what is younger than some seconds shows after a later test
        if hunted and (found := state.leaks(self.driver, patient=last)):
            left.append(f"memory, by this test or one of those just before it: {found}")
        self.driver.console.log(f"<6>{line}")
        here = self.machine
        limit_s = LOG_S * here.setup.accelerator.scale
        end = here.log.wait_for(line, start, limit_s, here.watch, here.time)
        if end is None:
            raise ConsoleLost(f"the kernel log stopped: a mark did not arrive in {limit_s:.0f} s")
        return left, end

    def splats(self, end: int | None = None) -> list[Splat]:
        """What the kernel complained about since this was last asked, up to `end` (now).

        The pieces tile the log: the boot and the module's first load belong to the first test. What
        our own SysRq brought is no complaint.
        """
        stop = self.machine.log.size if end is None else end
        start, self._judged = self._judged, stop
        return find(self.machine.log.unrequested(start, stop))


class NotServed(Exception):
    """A driver makes nothing of some hardware: its tests there are skipped."""

    def __init__(self, reason: SkipReason, details: str) -> None:
        super().__init__(details)
        self.reason = reason
        self.details = details  # the reason's text and the kernel's lines


@dataclass
class _Failures:
    """What failed in a row."""

    count: int = 0
    last: Exception = field(default_factory=Exception)


class Guests:
    """Boots guests for slots; ends them when it is closed."""

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
        self._lacking: dict[str, str] = {}  # of each topology, once it was asked for
        # of a driver and a topology: why its other tests there are skipped
        self._not_served: dict[tuple[str, str], NotServed] = {}
        self._works: dict[str, bool] = {}  # whether a driver has a disk on the default topology

    def check(self, slot: Slot) -> None:
        """Raises NotServed when it is known without a guest that the slot's tests cannot run.

        The kernel does not have the driver, QEMU cannot emulate the hardware, the driver's manifest
        says that it does not serve it, or an earlier test found that.
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
        """The guest of a slot, booted if need be, its driver loaded; test: for whom.

        Raises the error of the boot or of the load. After three failed loads in a row the slot's
        other tests get the last error again, without a boot; after three failed boots, all others
        get GuestUnavailable.
        NotServed when the driver finds no disk on this hardware, and does on the default.
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
        """Keeps in mind that a driver does not load on some hardware; see `get`."""
        key = (slot.driver, slot.topology)
        where = self._plan.hardware(slot.topology).name
        if splats:
            failed.kernel_log = "\n\n".join(one.excerpt for one in splats)
            first = f"{splats[0].kind}: {splats[0].line}"
            text = f"{slot.driver} does not load on {where}, see {test}: {first}"
            self._not_served[key] = _not_served("driver", f"topology:{where}", text)
        elif isinstance(failed, NoDisk) and self._works_elsewhere(slot):
            _, _, lines = failed.what.partition("\n")
            told = f"{slot.driver} finds no disk on {where}, and does on {DEFAULT.name}"
            names = (slot.driver, *self._plan.manifest(slot.driver).modules)
            own = [line for line in lines.splitlines() if any(name in line for name in names)]
            why = f": {without_stamps(own[-1])}" if own else ""
            problem = _not_served("driver", f"topology:{where}", f"{told}{why}", lines)
            self._not_served[key] = problem
            raise problem from None

    def _works_elsewhere(self, slot: Slot) -> bool:
        """Whether the driver finds a disk on the default topology, which is tried once."""
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
        # a test's clean-up would hang like the test did, for as long again
        console.fail_fast = True
        driver = Driver(manifest, self._kernel, console)
        # a kernel that goes on after an Oops goes on with its locks held: what waits for them would
        # be waited for until its deadline
        driver.console.check("echo 1 > /proc/sys/kernel/panic_on_oops")
        driver.load()
        if isinstance(manifest.disks, Pci):
            # a disk that comes later would be taken for something that a test left behind
            driver.console.check(nvme.settle_script(booted.setup.topology), nvme.APPEAR_S * 2)
        boot = boot_of(driver, name, booted.setup.topology.name)
        return Guest(booted, driver, name, boot, state.read(driver), self._surfaces)

    def discard(self) -> None:
        """Ends the guest at hand; the next test gets a fresh one."""
        self._guest = None
        self._slot = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()


def _not_served(lacking: Lacking, what: str, text: str, log: str = "") -> NotServed:
    reason = SkipReason(lacking=lacking, what=what, text=text)
    return NotServed(reason, f"{text}\n{log}".rstrip())


def boot_of(driver: Driver, guest: str, topology: str) -> Boot:
    """What the record says of a guest in which the driver has just been loaded."""
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
