# SPDX-License-Identifier: GPL-2.0-or-later
"""NVMe controllers that come to a running guest and go again.

They go into the free PCIe ports of its topology (`hotplug_ports`). QEMU takes one out as an
operator would who presses the slot's attention button: Linux waits five seconds for a second press,
then removes the device and powers the slot off. A guest that powers a slot off itself (0 to
/sys/bus/pci/slots/<port + 1>/power) loses the controller at once. It cannot be torn out without
the guest's doing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blockyard.images.hardware import devices
from blockyard.images.hardware.topology import Controller
from blockyard.images.machine.qmp import QmpError
from blockyard.images.machine.scratch import make_disks
from blockyard.kernel.host.errors import Failure, UsageError

if TYPE_CHECKING:
    from blockyard.images.machine.machine import Machine

# From the request to the device's end, at scale 1: the five seconds, and I/O that ends.
UNPLUG_S = 15.0
FREE_S = 2.0
POLL_S = 0.05


def plug(machine: Machine, controller: Controller, port: int) -> None:
    """Plugs a controller into a port, counted from 0; the guest finds it in its own time.

    Raises UsageError for a port that the topology has not and for a controller that QEMU does not
    take (see `devices.hotplug`), images.machine.qmp.QmpError when the port is taken.
    """
    ports = machine.setup.topology.hotplug_ports
    if not 0 <= port < ports:
        have = f"ports 0 to {ports - 1}" if ports else "no free port"
        raise UsageError(f"there is no port {port}: the guest has {have} (hotplug_ports)")
    attach(machine, controller, port)


def attach(machine: Machine, controller: Controller, port: int) -> None:
    """The same for a port that is known to be there."""
    commands = devices.hotplug(controller, port)
    files = devices.hotplug_files(controller, port)
    make_disks(machine.directory, files)
    try:
        for command, arguments in commands:
            machine.qmp.execute(command, arguments)
    finally:
        for name in files:  # QEMU has it open, and nobody else needs it
            (machine.directory / name).unlink()


def unplug(machine: Machine, controller: Controller, port: int) -> None:
    """Takes the controller out of its port and returns when it and what was behind it are gone.

    Raises Failure when the guest does not let go of it.
    """
    ask, *free = devices.unplug(controller, port)
    if _present(machine, port):  # else the guest has powered the slot off
        machine.qmp.execute(*ask)
    deadline = machine.time() + UNPLUG_S * machine.scale
    while _present(machine, port):
        machine.watch()
        if machine.time() > deadline:
            raise Failure(
                f"the guest has not let go of controller {controller.serial} in "
                f"{UNPLUG_S * machine.scale:.0f} s",
                log=machine.log.path,
            )
        time.sleep(POLL_S)
    for command, arguments in free:
        _free(machine, command, arguments)


def _present(machine: Machine, port: int) -> bool:
    """Whether QEMU has the controller."""
    there = machine.qmp.execute("qom-list", {"path": "/machine/peripheral"})
    return any(entry["name"] == devices.plugged_name(port) for entry in there)


def _free(machine: Machine, command: str, arguments: dict[str, object]) -> None:
    """QEMU lets go of what was behind a device a moment after the device is gone."""
    deadline = machine.time() + FREE_S * machine.scale
    while True:
        try:
            machine.qmp.execute(command, arguments)
            return
        except QmpError as refused:
            if "in use" not in refused.what or machine.time() > deadline:
                raise
        time.sleep(POLL_S)
