# SPDX-License-Identifier: GPL-2.0-or-later
"""From a description of a guest to one that answers: the one way to start a machine.

`boot` is a context manager: when it is left, QEMU is gone and its scratch files with it,
however it was left. A start from a snapshot in place of a boot is in `images.resume`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from blockyard.images.errors import BootTimeout, ConsoleLost
from blockyard.images.machine import tsc
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.pace import Pace
from blockyard.images.machine.scratch import scratch
from blockyard.images.machine.start import start
from blockyard.images.machine.vm_config import VmConfig
from blockyard.images.resume import note_boot, resumed

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
        guest = resumed(setup, stack, boot) if setup.start != "boot" else None
        yield guest or _booted(setup, stack)


def _booted(setup: VmConfig, stack: contextlib.ExitStack) -> Machine:
    begun = time.monotonic()
    guest = start(setup, stack)
    _wait_for_boot(guest)
    guest.boot_s = time.monotonic() - begun
    guest.effort_s = _effort_s(guest.pace)
    if setup.accelerator.name == "tcg":
        tsc.note(guest.log.path)
    note_boot(setup)
    return guest


def _effort_s(pace: Pace) -> float:
    """What the guest's start would have taken, had it not waited for processors and disks."""
    computed_s = pace.cpu_s()
    return pace.now() if computed_s is None else min(computed_s, pace.now())


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
