# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting a guest from a snapshot in place of a boot, where that is asked for or faster.

``auto`` measures both: the first guest of a kind boots and is noted, the second makes the snapshot
and starts from it, and whichever took less time is taken from then on.
"""

from __future__ import annotations

import contextlib
import time

from blockyard.images.machine import snapshot
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.snapshot import Booted, Snapshot
from blockyard.images.machine.start import start
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note


def resumed(setup: VmConfig, stack: contextlib.ExitStack, boot: Booted) -> Machine | None:
    """A guest that started from a snapshot, which is made if need be.

    boot: images.boot.boot. None: it is to boot, as no snapshot can serve it, boots are faster, or
    the snapshot did not start; then it is dropped. Raises UsageError where a snapshot was asked for
    and cannot serve.
    """
    if (saved := _snapshot(setup, boot)) is None:
        return None
    try:
        begun = time.monotonic()
        times = saved.times
        with contextlib.ExitStack() as trial:
            guest = start(setup, trial, saved)
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


def note_boot(setup: VmConfig) -> None:
    """Keeps in mind that such a guest boots, for ``auto``."""
    if setup.start == "auto" and not snapshot.obstacle(setup):
        snapshot.note_boot(setup)


def _snapshot(setup: VmConfig, boot: Booted) -> Snapshot | None:
    """What the guest starts from; None: it boots."""
    if problem := snapshot.obstacle(setup):
        if setup.start == "snapshot":
            raise UsageError(f"this guest cannot start from a snapshot: {problem}")
        return None
    if setup.start == "auto" and not snapshot.is_due(setup):
        return None
    saved = snapshot.snapshot(setup, boot)
    return saved if setup.start == "snapshot" or saved.pays else None
