# SPDX-License-Identifier: GPL-2.0-or-later
"""Rejects topologies whose fields are valid one by one but do not go together.

The rules are those of QEMU 10's hw/nvme (ctrl.c, ns.c and subsys.c); a comment names the source of
any other. A message names the field in the same form as msgspec's messages about a single field.
"""

from __future__ import annotations

from collections.abc import Iterator

from blockyard.images.hardware import bounds
from blockyard.images.hardware.bounds import Problem
from blockyard.images.hardware.topology import Controller, Fdp, Namespace, Topology
from blockyard.kernel.host.errors import UsageError

GUARD_BYTES = {0: 8, 2: 16}  # size of protection information, by its format (pif)


def check(topology: Topology, where: str) -> None:
    """Raises UsageError for the first problem. where: the topology's file, for the message."""
    for field, problem in _problems(topology):
        raise UsageError(f"{where}: {problem} - at `$.{field}`")


def _problems(topology: Topology) -> Iterator[Problem]:
    yield from _subsystems(topology)
    for number, controller in enumerate(topology.controllers):
        for field, problem in _controller(controller):
            yield f"controllers[{number}].{field}", problem
    for entry in topology.all_namespaces():
        for field, problem in _namespace(entry.namespace):
            yield f"{entry.field}.{field}", problem
    yield from _placement(topology)
    for number, disk in enumerate(topology.disks):
        if problem := _block_size(disk.block_size):
            yield f"disks[{number}].block_size", problem
    yield from bounds.problems(topology)


def _subsystems(topology: Topology) -> Iterator[Problem]:
    serials: dict[str, set[str]] = {}
    for number, subsystem in enumerate(topology.subsystems):
        if subsystem.name in serials:
            yield f"subsystems[{number}].name", f"duplicate subsystem name {subsystem.name!r}"
        serials[subsystem.name] = set()
    for number, controller in enumerate(topology.controllers):
        if not controller.subsystem:
            continue
        field = f"controllers[{number}]"
        if controller.subsystem not in serials:
            yield f"{field}.subsystem", f"unknown subsystem {controller.subsystem!r}"
            continue
        serials[controller.subsystem].add(controller.serial)
        if len(serials[controller.subsystem]) > 1:
            yield f"{field}.serial", "controllers of one subsystem need the same serial number"
    for number, name in enumerate(serials):
        if not serials[name]:
            yield f"subsystems[{number}]", f"no controller is in the subsystem {name!r}"


def _controller(controller: Controller) -> Iterator[Problem]:
    for field in ("cmb_size_mib", "pmr_size_mib"):
        size = getattr(controller, field)
        if size & (size - 1):
            yield field, f"invalid size {size}: the size of a PCI BAR is a power of two"
    if not controller.sriov_max_vfs:
        for field in ("sriov_vq_flexible", "sriov_vi_flexible"):
            if getattr(controller, field):
                yield field, "needs virtual functions: set sriov_max_vfs"
        return
    vfs = controller.sriov_max_vfs
    if not controller.subsystem:
        yield "sriov_max_vfs", "a controller with SR-IOV has to be in a subsystem"
    for field in ("cmb_size_mib", "pmr_size_mib"):
        if getattr(controller, field):
            yield field, "a controller with SR-IOV cannot have a CMB or PMR"
    if controller.sriov_vq_flexible < 2 * vfs:
        yield "sriov_vq_flexible", f"{vfs} virtual functions need {2 * vfs} queues: two each"
    if controller.sriov_vi_flexible < vfs:
        yield "sriov_vi_flexible", f"{vfs} virtual functions need {vfs} vectors: one each"
    if controller.max_ioqpairs < controller.sriov_vq_flexible + 2:
        yield "max_ioqpairs", "has to be at least sriov_vq_flexible + 2"
    if controller.msix_qsize < controller.sriov_vi_flexible + 1:
        yield "msix_qsize", "has to be at least sriov_vi_flexible + 1"


def _namespace(namespace: Namespace) -> Iterator[Problem]:
    if problem := _block_size(namespace.block_size):
        yield "block_size", problem
    yield from _metadata(namespace)
    if namespace.zoned:
        for field, problem in _zoned(namespace):
            yield f"zoned.{field}", problem
    for number, error in enumerate(namespace.errors):
        if error.lba + error.blocks > namespace.blocks:
            yield f"errors[{number}].lba", f"the namespace has only {namespace.blocks} blocks"


def _block_size(size: int) -> str:
    """The upper limit is that of Linux (BLK_MAX_BLOCK_SIZE); QEMU's is 2 MiB."""
    if size & (size - 1):
        return f"invalid block size {size}: expected a power of two from 512 to 65536"
    return ""


def _metadata(namespace: Namespace) -> Iterator[Problem]:
    if namespace.mset and not namespace.ms:
        yield "mset", "needs metadata: set ms"
    if not namespace.pi:
        for field in ("pil", "pif"):
            if getattr(namespace, field):
                yield field, "needs protection information: set pi"
    elif namespace.ms < (needed := GUARD_BYTES[namespace.pif]):
        yield "pi", f"needs {needed} bytes of metadata, but ms is {namespace.ms}"


def _zoned(namespace: Namespace) -> Iterator[Problem]:
    """QEMU silently rounds sizes down to blocks; here they have to be whole blocks."""
    assert namespace.zoned is not None
    zoned = namespace.zoned
    for field in ("zone_size_kib", "zone_capacity_kib"):
        if (getattr(zoned, field) << 10) % namespace.block_size:
            yield field, f"not a multiple of the block size, {namespace.block_size} bytes"
    if zoned.zone_capacity_kib > zoned.zone_size_kib:
        yield "zone_capacity_kib", f"more than the zone's size, {zoned.zone_size_kib} KiB"
    if namespace.blocks * namespace.block_size < zoned.zone_size_kib << 10:
        yield "zone_size_kib", "the namespace is smaller than one zone"
    if zoned.max_active and zoned.max_open > zoned.max_active:
        yield "max_open", f"more than max_active, {zoned.max_active}: open zones are active"


def _placement(topology: Topology) -> Iterator[Problem]:
    """Flexible data placement, subsystem by subsystem."""
    plans = {subsystem.name: subsystem.fdp for subsystem in topology.subsystems}
    for number, subsystem in enumerate(topology.subsystems):
        if subsystem.fdp and (problem := _groups(subsystem.fdp)):
            yield f"subsystems[{number}].fdp.nrg", problem
    formats: dict[tuple[str, int], tuple[int, int]] = {}
    for entry in topology.all_namespaces():
        namespace = entry.namespace
        name = topology.controllers[entry.controller].subsystem
        if plan := plans.get(name):
            for field, problem in _placed(namespace, plan):
                yield f"{entry.field}.{field}", problem
        elif namespace.ruhs:
            yield f"{entry.field}.ruhs", "reclaim unit handles need a subsystem with fdp"
        form = (namespace.block_size, namespace.ms)
        for handle in namespace.ruhs:
            if formats.setdefault((name, handle), form) != form:
                problem = f"handle {handle} is used by a namespace with another block format"
                yield f"{entry.field}.ruhs", problem


def _placed(namespace: Namespace, plan: Fdp) -> Iterator[Problem]:
    if namespace.zoned:
        yield "zoned", "a subsystem with fdp cannot have zoned namespaces"
    if not namespace.ruhs:
        # QEMU would choose an unused handle, if there is one
        yield "ruhs", "missing: a namespace in a subsystem with fdp needs reclaim unit handles"
    if len(set(namespace.ruhs)) < len(namespace.ruhs):
        yield "ruhs", "duplicate reclaim unit handle"
    if namespace.ruhs and max(namespace.ruhs) >= plan.nruh:
        yield "ruhs", f"the last reclaim unit handle is {plan.nruh - 1} (nruh)"


def _groups(fdp: Fdp) -> str:
    """A placement identifier has 16 bits: the high bits for the group, the rest for the handle."""
    bits = fdp.nrg.bit_length() if fdp.nrg > 1 else 0
    if 0xFFFF >> bits < fdp.nruh:
        return f"{fdp.nrg} groups leave no room for {fdp.nruh} handles in a 16-bit identifier"
    return ""
