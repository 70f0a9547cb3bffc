# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots a guest; every guest is started here.

`boot` is a context manager. When its block is left, normally or by an exception, QEMU has ended
and its scratch files are removed. `images.resume` starts a guest from a snapshot instead.
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

BOOT_S = 15.0  # a booting guest prints something at least this often, at accelerator scale 1
BOOT_STEPS = 8  # a boot may take this many times BOOT_S
TRIAL_STEPS = 2  # the same while an accelerator is probed (scale below 1)


@contextlib.contextmanager
def boot(setup: VmConfig) -> Iterator[Machine]:
    """Boots a guest, or starts it from a snapshot; the block runs once its serial console answers.

    Raises GuestPanicked, QemuDied, BootTimeout or ImageDamaged when the guest does not come up.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(scratch(setup.directory))
        guest = resumed(setup, stack, boot) if setup.start != "boot" else None
        yield guest or _booted(setup, stack)


def _booted(setup: VmConfig, stack: contextlib.ExitStack) -> Machine:
    started = time.monotonic()
    guest = start(setup, stack)
    _wait_for_boot(guest)
    guest.boot_s = time.monotonic() - started
    guest.effort_s = _effort_s(guest.pace)
    if setup.accelerator.name == "tcg":
        tsc.note(guest.log.path)
    note_boot(setup)
    return guest


def _effort_s(pace: Pace) -> float:
    """Seconds that the start would have taken without waiting for host CPUs and disks."""
    computed_s = pace.cpu_s()
    return pace.now() if computed_s is None else min(computed_s, pace.now())


def _wait_for_boot(guest: Machine) -> None:
    """Waits for the console's greeting. Slow is fine as long as the kernel log grows."""
    scale = guest.setup.accelerator.scale
    step_s, steps = BOOT_S * scale, BOOT_STEPS if scale >= 1 else TRIAL_STEPS
    started = guest.time()
    try:
        guest.serial.wait_ready(step_s, lambda: guest.log.size, steps)
        guest.watch()  # it can come up although an image is damaged
    except ConsoleLost:
        seconds = guest.time() - started
        raise BootTimeout(
            f"kernel {guest.setup.kernel.info.name}: the guest did not come up in {seconds:.0f} s",
            kernel_log=guest.log.tail(),
            log=guest.log.path,
        ) from None
