# SPDX-License-Identifier: GPL-2.0-or-later
"""Upper limits of a topology: those of QEMU 10, and the host's memory.

Each of QEMU's limits was tested: with one more, it does not start. Each controller, port and virtio
disk needs a slot of the PCI bus. Of its 32 slots, six are used by the machine itself, the console,
the guest root, the module image and the network.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from blockyard.images.hardware.topology import Topology

Problem = tuple[str, str]  # the field, and what is wrong with it

SLOTS = 26  # of the PCI bus, free for controllers, ports and disks
NAMESPACES = 256  # of a subsystem: NVME_MAX_NAMESPACES in hw/nvme/nvme.h
CONTROLLERS = 256  # of a subsystem, virtual functions included: NVME_MAX_CONTROLLERS
SCSI_DISKS = 256  # targets of a virtio-scsi controller
ZONES = 1 << 22  # of a namespace: QEMU needs 100 bytes of memory for each
UINT32 = 0xFFFFFFFF  # cmb_size_mb, in MiB
MEMINFO = Path("/proc/meminfo")


def problems(topology: Topology) -> Iterator[Problem]:
    """The fields of a topology that exceed a limit."""
    yield from _slots(topology)
    yield from _subsystems(topology)
    yield from _zones(topology)
    yield from _memory(topology)


def _slots(topology: Topology) -> Iterator[Problem]:
    scsi = [disk for disk in topology.disks if disk.interface == "virtio-scsi"]
    if len(scsi) > SCSI_DISKS:
        yield "disks", f"{len(scsi)} virtio-scsi disks, QEMU allows at most {SCSI_DISKS}"
    counts = {
        "controllers": len(topology.controllers),
        "hotplug_ports": topology.hotplug_ports,
        "disks": len(topology.disks) - len(scsi) + bool(scsi),
    }
    if (needed := sum(counts.values())) > SLOTS:
        most = max(counts, key=lambda field: counts[field])
        parts = ", ".join(f"{count} for {field}" for field, count in counts.items() if count)
        yield most, f"the PCI bus has {SLOTS} free slots, but {needed} are needed ({parts})"


def _subsystems(topology: Topology) -> Iterator[Problem]:
    names = [
        controller.subsystem or f"/{number}"
        for number, controller in enumerate(topology.controllers)
    ]
    namespaces = Counter(names[entry.controller] for entry in topology.all_namespaces())
    functions: Counter[str] = Counter()
    for name, controller in zip(names, topology.controllers, strict=True):
        functions[name] += 1 + controller.sriov_max_vfs
    for name, count in namespaces.items():
        if count > NAMESPACES:
            where = f"controllers[{names.index(name)}].namespaces"
            yield where, f"{count} namespaces, QEMU allows at most {NAMESPACES} in a subsystem"
    for name, count in functions.items():
        if count > CONTROLLERS:
            where = f"controllers[{names.index(name)}].sriov_max_vfs"
            problem = f"{count} controllers and virtual functions, QEMU allows at most"
            yield where, f"{problem} {CONTROLLERS} in a subsystem"


def _zones(topology: Topology) -> Iterator[Problem]:
    for entry in topology.all_namespaces():
        if zoned := entry.namespace.zoned:
            count = (entry.namespace.size_mib << 10) // zoned.zone_size_kib
            if count > ZONES:
                yield f"{entry.field}.zoned.zone_size_kib", f"{count} zones, at most {ZONES} work"


def _memory(topology: Topology) -> Iterator[Problem]:
    """QEMU allocates all of these on the host when it starts."""
    for number, controller in enumerate(topology.controllers):
        if (size := controller.cmb_size_mib) > UINT32:
            problem = f"{size} MiB, QEMU allows at most {UINT32} (uint32)"
            yield f"controllers[{number}].cmb_size_mib", problem
    sizes = {"memory_mib": topology.memory_mib}
    for number, controller in enumerate(topology.controllers):
        sizes[f"controllers[{number}].cmb_size_mib"] = controller.cmb_size_mib
        sizes[f"controllers[{number}].pmr_size_mib"] = controller.pmr_size_mib
    total, has = sum(sizes.values()), host_memory_mib()
    if has and total > has:
        field = max(sizes, key=lambda name: sizes[name])
        together = "" if total == sizes[field] else f", {total} MiB with the other sizes"
        yield field, f"{sizes[field]} MiB{together}: this host has {has} MiB with swap space"


def host_memory_mib() -> int:
    """Memory and swap space of this host, in MiB; 0 when /proc/meminfo cannot be read."""
    try:
        text = MEMINFO.read_text()
    except OSError:
        return 0
    return sum(map(int, re.findall(r"^(?:MemTotal|SwapTotal): +(\d+) kB", text, re.M))) >> 10
