# SPDX-License-Identifier: GPL-2.0-or-later
"""NVMe for the suites: nvme-cli and its answers, the controllers and namespaces of a topology.

Sections are those of the NVM Express Base Specification 2.0 unless another one is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockyard.images.console.console import Console
from blockyard.images.console.result import Result
from blockyard.images.console.script import call
from blockyard.images.hardware.devices import plugged_name
from blockyard.images.hardware.topology import Topology
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host.errors import Failure
from blockyard.modules.disk import Disk

SCRIPTS = Path(__file__).with_name("nvme.bash")
APPEAR_S = 10
# Status codes with their types, "Status Field" (section 3.3.3.2)
INVALID_OPCODE = 0x001
INVALID_FIELD = 0x002
LBA_OUT_OF_RANGE = 0x080
NOT_CHANGEABLE = 0x10E
INVALID_FORMAT = 0x10A
UNRECOVERED_READ = 0x281
GUARD_CHECK = 0x282
REFERENCE_TAG_CHECK = 0x284
COMPARE_FAILURE = 0x285


def controller(disk: Disk) -> str:
    """The controller's character device: /dev/nvme0 of /dev/nvme0n1."""
    return "/dev/" + disk.name[: disk.name.index("n", 4)]


def generic(disk: Disk) -> str:
    """The namespace's character device: /dev/ng0n1 of /dev/nvme0n1."""
    return disk.path.replace("/nvme", "/ng")


def query(console: Console, command: str) -> Any:
    """What an nvme-cli command answers."""
    return json.loads(console.check(f"nvme {command} --output-format=json"))


def status(result: Result) -> int:
    """The status code, with its type, that a command of nvme-cli failed with; 0 if it did not.

    Fails when it is not the device that refused it.
    """
    if result.exit_code == 0:
        return 0
    found = re.search(r"NVMe status: .*\(0x([0-9a-f]+)\)", result.output)
    assert found, f"no status of a device: {result.output}"
    return int(found[1], 16) & 0x7FF  # without Do Not Retry, More and the retry delay


def settled(topology: Topology) -> str:
    """A script that waits until all of a topology's namespaces have their disks.

    They are found asynchronously, and with native multipath a head stands above each path.
    """
    namespaces = sum(len(topology.attached(number)) for number in range(len(topology.controllers)))
    return call(SCRIPTS, "settle", namespaces, APPEAR_S)


def controllers(console: Console, topology: Topology) -> tuple[str, ...]:
    """The names that the guest gave to the topology's controllers; waits for them.

    Those of one subsystem share their serial number; QEMU counts their controller IDs upwards.
    """
    script = call(SCRIPTS, "controllers", len(topology.controllers), APPEAR_S)
    rows = [line.split() for line in console.check(script).splitlines()]
    names: dict[str, list[tuple[int, str]]] = {}
    for serial, cntlid, name in rows:
        names.setdefault(serial, []).append((int(cntlid), name))
    queues = {serial: iter(sorted(those)) for serial, those in names.items()}
    return tuple(next(queues[one.serial])[1] for one in topology.controllers)


def disk_of(console: Console, name: str, nsid: int) -> Disk:
    """The disk of a namespace of a controller; its number in the name need not be its NSID.

    Of one that has several paths, the head above them. Failure when there is none.
    """
    found = console.check(call(SCRIPTS, "disks_of", name, nsid)).split()
    if len(found) != 1:
        raise Failure(f"{name} has {len(found)} disks for namespace {nsid}: {found}")
    return Disk(re.sub(r"c\d+n", "n", found[0]), console)


@dataclass(frozen=True)
class Nvme:
    """The guest's controllers, in the topology's order."""

    machine: Machine
    console: Console
    names: tuple[str, ...]  # such as nvme0

    @property
    def topology(self) -> Topology:
        """What the guest was given."""
        return self.machine.setup.topology

    def device(self, number: int = 0) -> str:
        """A controller's character device."""
        return f"/dev/{self.names[number]}"

    def sysfs(self, number: int = 0) -> str:
        """A controller's folder in sysfs; its PCI function is `device` below it."""
        return f"/sys/class/nvme/{self.names[number]}"

    def function(self, number: int = 0) -> str:
        """A controller's PCI function, such as ``/sys/devices/pci0000:00/0000:00:04.0``."""
        return self.console.check(f"readlink -f {self.sysfs(number)}/device").strip()

    def disk(self, number: int = 0, nsid: int = 1) -> Disk:
        """The disk of a controller's namespace."""
        return disk_of(self.console, self.names[number], nsid)

    def query(self, command: str) -> Any:
        """What an nvme-cli command answers."""
        return query(self.console, command)

    def status(self, command: str) -> int:
        """The status that an nvme-cli command ends with; see `status`."""
        return status(self.console.run(f"nvme {command}"))

    def read(self, path: str) -> str:
        """A small file in the guest."""
        return self.console.check(f"cat {path}").strip()

    def settle(self) -> None:
        """Waits for the disks of all namespaces."""
        self.console.check(settled(self.topology), timeout_s=2 * APPEAR_S)

    def scanned(self, command: str, number: int = 0) -> None:
        """Runs a command that has a controller's namespaces looked for; waits until they were.

        The kernel does that in its own time (nvme_scan_work()). It is seen by its Identify
        commands, each of which interrupts: one for the list, and some for each namespace.
        """
        least = 1 + len(self.topology.attached(number))
        script = call(SCRIPTS, "scanned", self.names[number], least, APPEAR_S, "eval", command)
        self.console.check(script, timeout_s=2 * APPEAR_S)

    def live(self, number: int = 0) -> bool:
        """Whether a controller works."""
        return self.read(f"{self.sysfs(number)}/state") == "live"

    @contextmanager
    def detached(self, nsid: int, number: int = 0) -> Iterator[None]:
        """A controller is without a namespace for the time of the block."""
        cntlid = self.read(f"{self.sysfs(number)}/cntlid")
        which = f"{self.device(number)} --namespace-id={nsid} --controllers={cntlid}"
        self.console.check(f"nvme detach-ns {which}")
        try:
            yield
        finally:
            self.console.check(f"nvme attach-ns {which}")
            self.settle()

    def throttle(self, nsid: int, per_second: int, number: int = 0) -> None:
        """Lets QEMU take no more requests in a second for a namespace; 0: all there are."""
        topology = self.topology
        (node,) = [
            place.node
            for place in topology.all_namespaces()
            if place.nsid == nsid and (place.shared or place.controller == number)
        ]
        query = self.machine.qmp.execute("query-blockstats", {})
        backends = {one.get("node-name"): one.get("qdev") for one in query}
        # a guest that has come from a snapshot got its controllers plugged in
        backend = backends.get(node) or backends[plugged_name(number)]
        limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        self.machine.qmp.execute(
            "block_set_io_throttle", {"id": backend, "iops": per_second, **limits}
        )


def qemu_log(machine: Machine) -> str:
    """What QEMU printed."""
    from blockyard.images.machine.ports import QEMU_LOG

    return Path(machine.directory / QEMU_LOG).read_text()
