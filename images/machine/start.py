# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts QEMU and connects it with the machine that watches it and the diagnosis of its hangs."""

from __future__ import annotations

import contextlib

from blockyard.images.log.kernel_log import KernelLog
from blockyard.images.machine import diagnose
from blockyard.images.machine.launch import launch
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.pace import Pace
from blockyard.images.machine.qemu import KERNEL_LOG, RESUME
from blockyard.images.machine.qmp import Events, Monitor
from blockyard.images.machine.snapshot import Snapshot
from blockyard.images.machine.vm_config import VmConfig


def start(setup: VmConfig, stack: contextlib.ExitStack, saved: Snapshot | None = None) -> Machine:
    """A machine whose QEMU was just started, to boot or from a snapshot; `stack` ends it."""
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
