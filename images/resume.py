# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts a guest from a snapshot instead of a boot, where that is requested or faster.

``auto`` measures both. The first guest of a kind boots, which is recorded. The second makes the
snapshot and starts from it. From then on the faster way is used.
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
    """A guest that was started from a snapshot, which is made if it is missing.

    boot: images.boot.boot. None means that the guest has to boot: it cannot be saved, a boot is
    faster, or the snapshot did not start and was dropped. Raises UsageError when a snapshot was
    requested and this guest cannot start from one.
    """
    if (saved := _snapshot(setup, boot)) is None:
        return None
    try:
        started = time.monotonic()
        times = saved.times
        with contextlib.ExitStack() as trial:
            guest = start(setup, trial, saved)
            guest.boot_s = times.boot_s
            guest.effort_s = times.effort_s  # its deadlines are scaled by this
            snapshot.wake(guest)
            saved.record(time.monotonic() - started)
            if (keys := guest.keys) is not None:
                from blockyard.images.console import ssh  # slow to import; few guests need it

                ssh.start(guest.serial, keys)
            stack.push(trial.pop_all())
            return guest
    except (Failure, *BROKEN_FILE) as error:
        why = getattr(error, "what", None) or str(error)
        reason = why.strip().splitlines()[-1].strip()
        note(f"cannot start from the snapshot, so it is dropped and the guest boots: {reason}")
        saved.drop()
        return None


def note_boot(setup: VmConfig) -> None:
    """Records for ``auto`` that such a guest boots."""
    if setup.start == "auto" and not snapshot.obstacle(setup):
        snapshot.note_boot(setup)


def _snapshot(setup: VmConfig, boot: Booted) -> Snapshot | None:
    """The snapshot to start from; None when the guest has to boot."""
    if problem := snapshot.obstacle(setup):
        if setup.start == "snapshot":
            raise UsageError(f"this guest cannot start from a snapshot: {problem}")
        return None
    if setup.start == "auto" and not snapshot.is_due(setup):
        return None
    saved = snapshot.snapshot(setup, boot)
    return saved if setup.start == "snapshot" or saved.is_faster else None
