# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds out from QEMU's help which devices and properties it has."""

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
# All devices that a topology can need.
DRIVERS = (
    "nvme",
    "nvme-ns",
    "nvme-subsys",
    "pcie-root-port",
    "scsi-hd",
    "virtio-blk-pci",
    "virtio-scsi-pci",
)

Properties = dict[str, frozenset[str]]  # device → names of its properties


def missing_feature(topology: Topology, tools: ToolRoot) -> str:
    """Why the tool root's QEMU cannot emulate a topology; empty when it can.

    Runs QEMU once per version (half a second), and not for topologies that need nothing beyond the
    default topology. Raises Failure when QEMU does not answer.
    """
    required = needed(topology)
    default = needed(DEFAULT)
    if all(names <= default.get(driver, frozenset()) for driver, names in required.items()):
        return ""
    version = tools.versions[PACKAGE]
    return first_missing(required, properties(tools), f"QEMU {version}")


def needed(topology: Topology) -> Properties:
    """The devices of a topology and the properties that it sets."""
    required: dict[str, set[str]] = {}
    for option, options in devices.items(topology):
        if option == "device":
            # id and bus are not in a device's list of properties
            names = options.keys() - {"driver", "id", "bus"}
            required.setdefault(str(options["driver"]), set()).update(names)
    return {driver: frozenset(names) for driver, names in required.items()}


def first_missing(required: Properties, available: Properties, qemu: str) -> str:
    """A sentence about the first required device that is not available; empty if all are.

    qemu: QEMU's name and version, for the sentence.
    """
    for driver, names in required.items():
        if driver not in available:
            return f"{qemu} has no device {driver}"
        if absent := sorted(names - available[driver]):
            return f"the device {driver} of {qemu} has no {' and no '.join(absent)}"
    return ""


def properties(tools: ToolRoot) -> Properties:
    """The properties of all DRIVERS that the tool root's QEMU has; cached."""
    key = store.digest("devices", tools.versions[PACKAGE], DRIVERS)

    def make(path: Path) -> None:
        answers = {driver: _ask(tools, driver) for driver in DRIVERS}
        data = {driver: sorted(names) for driver, names in answers.items() if names}
        (path / "devices.json").write_bytes(msgspec.json.encode(data))

    entry = store.get("qemu", key, "the list of QEMU's devices", make)
    return msgspec.json.decode((entry / "devices.json").read_bytes(), type=Properties)


def _ask(tools: ToolRoot, driver: str) -> frozenset[str]:
    """The properties of a device; empty when QEMU does not have it."""
    argv = Sandbox(tools.root).argv([PROGRAM, "-device", f"{driver},help"])
    answer = commands.ask(argv, timeout_s=ANSWER_S)
    if answer.returncode and "not found" not in answer.stderr:
        raise Failure(f"cannot ask QEMU for its device {driver}: {answer.stderr.strip()}")
    return parse(answer.stdout.splitlines())


def parse(lines: Iterable[str]) -> frozenset[str]:
    """The names in QEMU's help on a device, whose lines are ``  name=<type>  - text``."""
    matches = (re.match(r"\s+([\w.-]+)=<", line) for line in lines)
    return frozenset(match[1] for match in matches if match)
