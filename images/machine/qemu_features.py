# SPDX-License-Identifier: GPL-2.0-or-later
"""What the QEMU at hand can emulate: devices and their properties, as its own help tells them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from blockyard.images.hardware import devices
from blockyard.images.hardware.topology import DEFAULT, Topology
from blockyard.images.machine.qemu import PACKAGE, PROGRAM
from blockyard.kernel.host import commands, store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.sandbox import Sandbox

ANSWER_S = 60.0
# All that a topology can ask for.
DRIVERS = (
    "nvme",
    "nvme-ns",
    "nvme-subsys",
    "pcie-root-port",
    "scsi-hd",
    "virtio-blk-pci",
    "virtio-scsi-pci",
)

Properties = dict[str, frozenset[str]]  # of a device by its name; no entry: there is none


def lacking(topology: Topology, tools: ToolRoot) -> str:
    """Why the tool root's QEMU cannot emulate a topology; empty when it can.

    QEMU is asked once per version (half a second), and never for what the default topology has.
    """
    wanted = needed(topology)
    usual = needed(DEFAULT)
    if all(names <= usual.get(driver, frozenset()) for driver, names in wanted.items()):
        return ""
    version = tools.versions[PACKAGE]
    return missing(wanted, properties(tools), f"QEMU {version}")


def needed(topology: Topology) -> Properties:
    """The devices of a topology and the properties it sets."""
    found: dict[str, set[str]] = {}
    for option, options in devices.items(topology):
        if option == "device":
            # where a device stands and what it is called is no property of its own
            names = options.keys() - {"driver", "id", "bus"}
            found.setdefault(options["driver"], set()).update(names)
    return {driver: frozenset(names) for driver, names in found.items()}


def missing(wanted: Properties, there: Properties, qemu: str) -> str:
    """In words: what of `wanted` is not `there`; empty when everything is."""
    for driver, names in wanted.items():
        if driver not in there:
            return f"{qemu} has no device {driver}"
        if absent := sorted(names - there[driver]):
            return f"the device {driver} of {qemu} has no {' and no '.join(absent)}"
    return ""


def properties(tools: ToolRoot) -> Properties:
    """What the tool root's QEMU has of all the devices that a topology can ask for."""
    key = store.digest("devices", tools.versions[PACKAGE], DRIVERS)

    def make(path: Path) -> None:
        told = {driver: _ask(tools, driver) for driver in DRIVERS}
        data = {driver: sorted(names) for driver, names in told.items() if names}
        (path / "devices.json").write_bytes(msgspec.json.encode(data))

    entry = store.get("qemu", key, "what QEMU's devices can do", make)
    return msgspec.json.decode((entry / "devices.json").read_bytes(), type=Properties)


def _ask(tools: ToolRoot, driver: str) -> frozenset[str]:
    """The properties of a device; none when QEMU does not have it."""
    argv = Sandbox(tools.root).argv([PROGRAM, "-device", f"{driver},help"])
    told = commands.ask(argv, timeout_s=ANSWER_S)
    if told.returncode and "not found" not in told.stderr:
        raise Failure(f"cannot ask QEMU for its device {driver}: {told.stderr.strip()}")
    return parse(told.stdout.splitlines())


def parse(lines: Iterable[str]) -> frozenset[str]:
    """The names in QEMU's help on a device: each has a line ``  name=<type>  - text``."""
    found = (re.match(r"\s+([\w.-]+)=<", line) for line in lines)
    return frozenset(match[1] for match in found if match)
