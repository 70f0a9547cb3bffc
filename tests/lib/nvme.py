# SPDX-License-Identifier: GPL-2.0-or-later
"""NVMe for the suites: nvme-cli and its output, the controllers and namespaces of a topology.

Section numbers are those of the NVM Express Base Specification 2.0 unless another is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from blockyard.images.console.console import Console
from blockyard.images.console.result import Result
from blockyard.images.console.script import call
from blockyard.images.hardware.devices import plugged_name
from blockyard.images.hardware.topology import Topology
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.ports import QEMU_LOG
from blockyard.kernel.host.errors import Failure
from blockyard.modules.disk import Disk

SCRIPTS = Path(__file__).with_name("nvme.bash")
APPEAR_S = 10
# status codes including their type, "Status Field" (section 3.3.3.2)
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


class BlockStats(msgspec.Struct, rename="kebab"):
    """A disk in QEMU's answer to query-blockstats."""

    node_name: str = ""
    qdev: str = ""  # the device's id or path, for block_set_io_throttle


def generic(disk: Disk) -> str:
    """The namespace's character device: /dev/ng0n1 of /dev/nvme0n1."""
    return disk.path.replace("/nvme", "/ng")


def query(console: Console, command: str) -> Any:
    """Run an nvme-cli command and return its JSON output."""
    return json.loads(console.check(f"nvme {command} --output-format=json"))


def status(result: Result) -> int:
    """The status code, including its type, of a failed nvme-cli command; 0 for success.

    Fails if the error does not come from the device.
    """
    if result.exit_code == 0:
        return 0
    match = re.search(r"NVMe status: .*\(0x([0-9a-f]+)\)", result.output)
    assert match, f"no NVMe status in the output: {result.output}"
    return int(match[1], 16) & 0x7FF  # without Do Not Retry, More and the retry delay


def settle_script(topology: Topology) -> str:
    """A script that waits until all namespaces of a topology have their disks.

    The kernel scans namespaces asynchronously; with native multipath the disk is the head's.
    """
    namespaces = sum(len(topology.attached(number)) for number in range(len(topology.controllers)))
    return call(SCRIPTS, "settle", namespaces, APPEAR_S)


def controllers(console: Console, topology: Topology) -> tuple[str, ...]:
    """The guest's names of the topology's controllers, in the topology's order; waits for them.

    Controllers of a subsystem share a serial number; QEMU numbers their controller IDs in order.
    """
    script = call(SCRIPTS, "controllers", len(topology.controllers), APPEAR_S)
    rows = [line.split() for line in console.check(script).splitlines()]
    names: dict[str, list[tuple[int, str]]] = {}
    for serial, cntlid, name in rows:
        names.setdefault(serial, []).append((int(cntlid), name))
    in_order = {serial: iter(sorted(group)) for serial, group in names.items()}
    return tuple(next(in_order[controller.serial])[1] for controller in topology.controllers)


def disk_of(console: Console, name: str, nsid: int) -> Disk:
    """The disk of a controller's namespace; the number in its name may differ from the NSID.

    With native multipath it is the head. Raises Failure unless there is exactly one.
    """
    names = console.check(call(SCRIPTS, "disks_of", name, nsid)).split()
    if len(names) != 1:
        raise Failure(f"{name} has {len(names)} disks for namespace {nsid}, expected 1: {names}")
    return Disk(re.sub(r"c\d+n", "n", names[0]), console)


@dataclass(frozen=True)
class Nvme:
    """The guest's controllers, in the topology's order."""

    machine: Machine
    console: Console
    names: tuple[str, ...]  # such as nvme0

    @property
    def topology(self) -> Topology:
        """The topology of the guest."""
        return self.machine.setup.topology

    def device(self, number: int = 0) -> str:
        """The character device of a controller, such as /dev/nvme0."""
        return f"/dev/{self.names[number]}"

    def sysfs(self, number: int = 0) -> str:
        """A controller's folder in sysfs; its PCI function is `device` below it."""
        return f"/sys/class/nvme/{self.names[number]}"

    def function(self, number: int = 0) -> str:
        """A controller's PCI function, such as ``/sys/devices/pci0000:00/0000:00:04.0``."""
        return self.console.check(f"readlink -f {self.sysfs(number)}/device").strip()

    def disk(self, number: int = 0, nsid: int = 1) -> Disk:
        """The disk of a controller's namespace; see disk_of()."""
        return disk_of(self.console, self.names[number], nsid)

    def query(self, command: str) -> Any:
        """Run an nvme-cli command in the guest and return its JSON output."""
        return query(self.console, command)

    def status(self, command: str) -> int:
        """Run an nvme-cli command and return its NVMe status; see status()."""
        return status(self.console.run(f"nvme {command}"))

    def read(self, path: str) -> str:
        """The content of small files in the guest, stripped."""
        return self.console.check(f"cat {path}").strip()

    def settle(self) -> None:
        """Wait for the disks of all namespaces."""
        self.console.check(settle_script(self.topology), timeout_s=2 * APPEAR_S)

    def rescan(self, command: str, number: int = 0) -> None:
        """Run a command that makes the kernel scan a controller's namespaces; wait for the scan.

        The scan is asynchronous (nvme_scan_work()). Its Identify commands show in the interrupts of
        the admin queue: one for the list of namespaces, and at least one for each namespace.
        """
        count = 1 + len(self.topology.attached(number))
        script = call(SCRIPTS, "rescan", self.names[number], count, APPEAR_S, "eval", command)
        self.console.check(script, timeout_s=2 * APPEAR_S)

    def live(self, number: int = 0) -> bool:
        """Whether a controller's state is `live`."""
        return self.read(f"{self.sysfs(number)}/state") == "live"

    @contextmanager
    def detached(self, nsid: int, number: int = 0) -> Iterator[None]:
        """Detach a namespace from a controller for the time of the block."""
        cntlid = self.read(f"{self.sysfs(number)}/cntlid")
        target = f"{self.device(number)} --namespace-id={nsid} --controllers={cntlid}"
        self.console.check(f"nvme detach-ns {target}")
        try:
            yield
        finally:
            self.console.check(f"nvme attach-ns {target}")
            self.settle()

    def throttle(self, nsid: int, per_second: int, number: int = 0) -> None:
        """Limit a namespace in QEMU to so many requests per second; 0: no limit."""
        topology = self.topology
        (node,) = [
            namespace.node
            for namespace in topology.all_namespaces()
            if namespace.nsid == nsid and (namespace.shared or namespace.controller == number)
        ]
        statistics = self.machine.qmp.query("query-blockstats", list[BlockStats])
        devices = {entry.node_name: entry.qdev for entry in statistics}
        # controllers of a guest restored from a snapshot were hot-plugged
        device = devices.get(node) or devices[plugged_name(number)]
        limits = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        self.machine.qmp.execute(
            "block_set_io_throttle", {"id": device, "iops": per_second, **limits}
        )


def qemu_log(machine: Machine) -> str:
    """The output of the machine's QEMU so far."""
    return (machine.directory / QEMU_LOG).read_text()
