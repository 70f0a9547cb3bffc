# SPDX-License-Identifier: GPL-2.0-or-later
"""From a description of a guest to one that answers: the one way to start a machine.

`boot` is a context manager: when it is left, QEMU is gone and its scratch files with it,
however it was left. It starts the guest from a snapshot where that is asked for or faster, boots
it otherwise, and joins what knows nothing of each other: QEMU's process, the machine that watches
it, and the diagnosis of one that is silent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from blockyard.images.errors import BootTimeout, ConsoleLost
from blockyard.images.log.kernel_log import KernelLog
from blockyard.images.machine import diagnose, snapshot, tsc
from blockyard.images.machine.launch import launch
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.pace import Pace
from blockyard.images.machine.qemu import KERNEL_LOG, RESUME
from blockyard.images.machine.qmp import Events, Monitor
from blockyard.images.machine.scratch import scratch
from blockyard.images.machine.snapshot import Snapshot
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note

BOOT_S = 15.0  # a guest that comes up says something within this, at accelerator scale 1
BOOT_STEPS = 8  # and answers after so many of these,
TRIAL_STEPS = 2  # or so many where an accelerator is on trial (at less than scale 1)


@contextlib.contextmanager
def boot(setup: VmConfig) -> Iterator[Machine]:
    """Boots a guest, or starts it from a snapshot; the block runs when its serial console answers.

    Raises GuestPanicked, QemuDied, BootTimeout or ImageDamaged when it does not come up.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(scratch(setup.directory))
        saved = _snapshot(setup)
        guest = _woken(setup, stack, saved) if saved else None
        yield guest or _booted(setup, stack)


def _booted(setup: VmConfig, stack: contextlib.ExitStack) -> Machine:
    begun = time.monotonic()
    guest = _started(setup, stack, None)
    _wait_for_boot(guest)
    guest.boot_s = time.monotonic() - begun
    guest.effort_s = _effort_s(guest.pace)
    if setup.accelerator.name == "tcg":
        tsc.note(guest.log.path)
    if setup.start == "auto" and not snapshot.obstacle(setup):
        snapshot.note_boot(setup)
    return guest


def _woken(setup: VmConfig, stack: contextlib.ExitStack, saved: Snapshot) -> Machine | None:
    """A guest that starts from a snapshot; None when it does not, and the snapshot is dropped."""
    try:
        begun = time.monotonic()
        times = saved.times
        with contextlib.ExitStack() as trial:
            guest = _started(setup, trial, saved)
            guest.boot_s = times.boot_s
            guest.effort_s = times.effort_s  # the measure of this guest's speed
            snapshot.wake(guest)
            saved.record(time.monotonic() - begun)
            if (keys := guest.keys) is not None:
                from blockyard.images.console import ssh  # heavy, and most guests do without

                ssh.start(guest.serial, keys)
            stack.push(trial.pop_all())
            return guest
    except (Failure, *BROKEN_FILE) as error:
        why = getattr(error, "what", None) or str(error)
        reason = why.strip().splitlines()[-1].strip()
        note(f"a saved guest does not start and is dropped, this one boots: {reason}")
        saved.drop()
        return None


def _effort_s(pace: Pace) -> float:
    """What the guest's start would have taken, had it not waited for processors and disks."""
    computed_s = pace.cpu_s()
    return pace.now() if computed_s is None else min(computed_s, pace.now())


def _snapshot(setup: VmConfig) -> Snapshot | None:
    """What the guest starts from; None: it boots."""
    if setup.start == "boot":
        return None
    if problem := snapshot.obstacle(setup):
        if setup.start == "snapshot":
            raise UsageError(f"this guest cannot start from a snapshot: {problem}")
        return None
    if setup.start == "auto" and not snapshot.is_due(setup):
        return None
    saved = snapshot.snapshot(setup, boot)
    return saved if setup.start == "snapshot" or saved.pays else None


def _wait_for_boot(guest: Machine) -> None:
    """A guest that boots says so, line by line: it may take its time, but not stand still."""
    scale = guest.setup.accelerator.scale
    step_s, steps = BOOT_S * scale, BOOT_STEPS if scale >= 1 else TRIAL_STEPS
    begun = guest.time()
    try:
        guest.serial.wait_ready(step_s, lambda: guest.log.size, steps)
        guest.watch()  # it may have come up without all of its files
    except ConsoleLost:
        told = f"the guest did not come up in {guest.time() - begun:.0f} s"
        raise BootTimeout(
            f"kernel {guest.setup.kernel.info.name}: {told}",
            kernel_log=guest.log.tail(),
            log=guest.log.path,
        ) from None


def _started(setup: VmConfig, stack: contextlib.ExitStack, saved: Snapshot | None) -> Machine:
    closing = stack.enter_context(contextlib.ExitStack())  # after QEMU has ended
    started = launch(setup, stack, saved)
    guest = Machine(
        setup=setup,
        log=KernelLog(setup.directory / KERNEL_LOG, shared=setup.serial_port == "shared"),
        events=Events(started.events, RESUME if saved else ()),
        qmp=Monitor(started.monitor),
        pace=Pace(started.process.pid),
        diagnosis=diagnose,
        _qemu=started,
    )
    closing.callback(guest.qmp.close)
    stack.callback(guest.close_consoles)
    return guest
