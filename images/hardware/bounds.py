# SPDX-License-Identifier: GPL-2.0-or-later
"""How much of each thing a guest can have: what QEMU 10 takes, and what the host has.

Each bound was tried with the real QEMU: one more, and it does not start. A slot of the PCI bus is
taken by each controller, port and virtio disk; of its 32, six are the machine's own, the console's,
the guest root's, the module image's and the network's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from blockyard.images.hardware.topology import Topology

Problem = tuple[str, str]  # the place, what is wrong there

SLOTS = 26  # of the PCI bus, free for controllers, ports and disks
NAMESPACES = 256  # of a subsystem: NVME_MAX_NAMESPACES in hw/nvme/nvme.h
CONTROLLERS = 256  # of a subsystem, virtual functions included: NVME_MAX_CONTROLLERS
SCSI_DISKS = 256  # targets of a virtio-scsi controller
ZONES = 1 << 22  # of a namespace: QEMU keeps 100 bytes for each
UINT32 = 0xFFFFFFFF  # cmb_size_mb, in MiB
MEMINFO = Path("/proc/meminfo")


def problems(topology: Topology) -> Iterator[Problem]:
    """What of a topology is too much, with the field."""
    yield from _slots(topology)
    yield from _subsystems(topology)
    yield from _zones(topology)
    yield from _memory(topology)


def _slots(topology: Topology) -> Iterator[Problem]:
    scsi = [disk for disk in topology.disks if disk.interface == "virtio-scsi"]
    if len(scsi) > SCSI_DISKS:
        yield "disks", f"{len(scsi)} virtio-scsi disks, QEMU has {SCSI_DISKS} at most"
    counts = {
        "controllers": len(topology.controllers),
        "hotplug_ports": topology.hotplug_ports,
        "disks": len(topology.disks) - len(scsi) + bool(scsi),
    }
    if (needed := sum(counts.values())) > SLOTS:
        most = max(counts, key=lambda field: counts[field])
        parts = ", ".join(f"{count} for {field}" for field, count in counts.items() if count)
        told = f"the PCI bus has {SLOTS} free slots, and these need {needed}"
        yield most, f"{told} ({parts})"


def _subsystems(topology: Topology) -> Iterator[Problem]:
    names = [one.subsystem or f"/{number}" for number, one in enumerate(topology.controllers)]
    namespaces = Counter(names[place.controller] for place in topology.places())
    functions: Counter[str] = Counter()
    for name, controller in zip(names, topology.controllers, strict=True):
        functions[name] += 1 + controller.sriov_max_vfs
    for name, count in namespaces.items():
        if count > NAMESPACES:
            where = f"controllers[{names.index(name)}].namespaces"
            yield where, f"{count} namespaces, QEMU has {NAMESPACES} at most in a subsystem"
    for name, count in functions.items():
        if count > CONTROLLERS:
            where = f"controllers[{names.index(name)}].sriov_max_vfs"
            told = f"{count} controllers and virtual functions, QEMU has {CONTROLLERS} at most"
            yield where, f"{told} in a subsystem"


def _zones(topology: Topology) -> Iterator[Problem]:
    for place in topology.places():
        if zoned := place.namespace.zoned:
            count = (place.namespace.size_mib << 10) // zoned.zone_size_kib
            if count > ZONES:
                yield f"{place.field}.zoned.zone_size_kib", f"{count} zones, at most {ZONES} work"


def _memory(topology: Topology) -> Iterator[Problem]:
    """QEMU gets all of these from the host when it starts."""
    for number, one in enumerate(topology.controllers):
        if one.cmb_size_mib > UINT32:
            told = f"{one.cmb_size_mib} MiB, QEMU has {UINT32} at most (uint32)"
            yield f"controllers[{number}].cmb_size_mib", told
    wanted = {"memory_mib": topology.memory_mib}
    for number, one in enumerate(topology.controllers):
        wanted[f"controllers[{number}].cmb_size_mib"] = one.cmb_size_mib
        wanted[f"controllers[{number}].pmr_size_mib"] = one.pmr_size_mib
    total, has = sum(wanted.values()), host_memory_mib()
    if has and total > has:
        field = max(wanted, key=lambda name: wanted[name])
        together = "" if total == wanted[field] else f", with all others {total} MiB"
        yield field, f"{wanted[field]} MiB{together}: this host has {has} MiB, swap space included"


def host_memory_mib() -> int:
    """Memory and swap space of this host; 0 when it does not say."""
    try:
        text = MEMINFO.read_text()
    except OSError:
        return 0
    return sum(map(int, re.findall(r"^(?:MemTotal|SwapTotal): +(\d+) kB", text, re.M))) >> 10
