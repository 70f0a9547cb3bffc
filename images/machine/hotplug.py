# SPDX-License-Identifier: GPL-2.0-or-later
"""Plugs NVMe controllers into a running guest, and unplugs them.

They use the free PCIe ports of the topology (`hotplug_ports`). QEMU unplugs a controller by
pressing the slot's attention button: Linux waits five seconds for a second press, then removes the
device and powers the slot off. A guest can also power a slot off itself (0 into
/sys/bus/pci/slots/<port + 1>/power), which removes the controller at once. Surprise removal is not
possible: the guest always takes part.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from blockyard.images.hardware import devices
from blockyard.images.hardware.topology import Controller
from blockyard.images.machine.qmp import QmpError
from blockyard.images.machine.scratch import make_disks
from blockyard.kernel.host.errors import Failure, UsageError

if TYPE_CHECKING:
    from blockyard.images.machine.machine import Machine

# From the request to the device's removal, at scale 1: the five seconds, and pending I/O.
UNPLUG_S = 15.0
FREE_S = 2.0  # then until QEMU has released the backends
POLL_S = 0.05


def plug(machine: Machine, controller: Controller, port: int) -> None:
    """Plugs a controller into a port, counted from 0. Does not wait for the guest to detect it.

    Raises UsageError for a port that the topology does not have and for a controller that QEMU
    cannot plug in (see `devices.hotplug`), images.machine.qmp.QmpError when the port is in use.
    """
    ports = machine.setup.topology.hotplug_ports
    if not 0 <= port < ports:
        have = f"ports 0 to {ports - 1}" if ports else "no free port"
        raise UsageError(f"unknown port {port}: the guest has {have} (hotplug_ports)")
    attach(machine, controller, port)


def attach(machine: Machine, controller: Controller, port: int) -> None:
    """Like `plug`, for a port that is known to exist."""
    commands = devices.hotplug(controller, port)
    files = devices.hotplug_files(controller, port)
    make_disks(machine.directory, files)
    try:
        for command, arguments in commands:
            machine.qmp.execute(command, arguments)
    finally:
        for name in files:  # QEMU has opened it by now
            (machine.directory / name).unlink()


def unplug(machine: Machine, controller: Controller, port: int) -> None:
    """Unplugs the controller from its port; returns when it and its backends are removed.

    Raises Failure when the guest does not release the controller in time.
    """
    ask, *free = devices.unplug(controller, port)
    if _present(machine, port):  # else the guest has powered the slot off
        machine.qmp.execute(*ask)
    deadline = machine.time() + UNPLUG_S * machine.scale
    while _present(machine, port):
        machine.watch()
        if machine.time() > deadline:
            raise Failure(
                f"the guest did not release controller {controller.serial} within "
                f"{UNPLUG_S * machine.scale:.0f} s",
                log=machine.log.path,
            )
        time.sleep(POLL_S)
    for command, arguments in free:
        _free(machine, command, arguments)


class _Object(msgspec.Struct):
    """An entry of QEMU's answer to qom-list."""

    name: str


def _present(machine: Machine, port: int) -> bool:
    """Whether QEMU has a controller in the port."""
    peripherals = machine.qmp.query("qom-list", list[_Object], path="/machine/peripheral")
    return any(device.name == devices.plugged_name(port) for device in peripherals)


def _free(machine: Machine, command: str, arguments: dict[str, object]) -> None:
    """Sends a command that removes a backend; QEMU uses it for a moment after the device's end."""
    deadline = machine.time() + FREE_S * machine.scale
    while True:
        try:
            machine.qmp.execute(command, arguments)
            return
        except QmpError as refused:
            if "in use" not in refused.what or machine.time() > deadline:
                raise
        time.sleep(POLL_S)
