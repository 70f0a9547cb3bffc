# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a topology cannot be, although each field on its own could.

The rules are those of QEMU 10's hw/nvme (ctrl.c, ns.c and subsys.c); where they come from
somewhere else, a comment says so. Each problem is told with the place in the file, in the form that
msgspec has for the problems of a single field.
"""

from __future__ import annotations

from collections.abc import Iterator

from blockyard.images.hardware import bounds
from blockyard.images.hardware.topology import Controller, Fdp, Namespace, Topology
from blockyard.kernel.host.errors import UsageError

Problem = tuple[str, str]  # the place, what is wrong there

GUARD_BYTES = {0: 8, 2: 16}  # of protection information, by its format (pif)


def check(topology: Topology, where: str) -> None:
    """Raises UsageError for the first problem; where: the file it is in."""
    for place, problem in _problems(topology):
        raise UsageError(f"{where}: {problem} - at `$.{place}`")


def _problems(topology: Topology) -> Iterator[Problem]:
    yield from _subsystems(topology)
    for number, controller in enumerate(topology.controllers):
        place = f"controllers[{number}]"
        for field, problem in _controller(controller):
            yield f"{place}.{field}", problem
    for one in topology.places():
        for field, problem in _namespace(one.namespace):
            yield f"{one.field}.{field}", problem
    yield from _placement(topology)
    for number, disk in enumerate(topology.disks):
        if problem := _block_size(disk.block_size):
            yield f"disks[{number}].block_size", problem
    yield from bounds.problems(topology)


def _subsystems(topology: Topology) -> Iterator[Problem]:
    serials: dict[str, set[str]] = {}
    for number, subsystem in enumerate(topology.subsystems):
        if subsystem.name in serials:
            yield f"subsystems[{number}].name", f"there are two subsystems {subsystem.name!r}"
        serials[subsystem.name] = set()
    for number, controller in enumerate(topology.controllers):
        if not controller.subsystem:
            continue
        place = f"controllers[{number}]"
        if controller.subsystem not in serials:
            yield f"{place}.subsystem", f"there is no subsystem {controller.subsystem!r}"
            continue
        serials[controller.subsystem].add(controller.serial)
        if len(serials[controller.subsystem]) > 1:
            yield f"{place}.serial", "the controllers of a subsystem have one serial number"
    for number, name in enumerate(serials):
        if not serials[name]:
            yield f"subsystems[{number}]", f"no controller is in the subsystem {name!r}"


def _controller(one: Controller) -> Iterator[Problem]:
    for field in ("cmb_size_mib", "pmr_size_mib"):
        size = getattr(one, field)
        if size & (size - 1):
            yield field, f"the size of a PCI BAR is a power of two, {size} is not"
    if not one.sriov_max_vfs:
        for field in ("sriov_vq_flexible", "sriov_vi_flexible"):
            if getattr(one, field):
                yield field, "there are no virtual functions to give it to (sriov_max_vfs)"
        return
    vfs = one.sriov_max_vfs
    if not one.subsystem:
        yield "sriov_max_vfs", "SR-IOV needs the controller to be in a subsystem"
    for field in ("cmb_size_mib", "pmr_size_mib"):
        if getattr(one, field):
            yield field, "a controller with SR-IOV has no memory of its own"
    if one.sriov_vq_flexible < 2 * vfs:
        yield "sriov_vq_flexible", f"{vfs} virtual functions need {2 * vfs} queues: two each"
    if one.sriov_vi_flexible < vfs:
        yield "sriov_vi_flexible", f"{vfs} virtual functions need {vfs} vectors: one each"
    if one.max_ioqpairs < one.sriov_vq_flexible + 2:
        yield "max_ioqpairs", "two queue pairs more than sriov_vq_flexible are needed"
    if one.msix_qsize < one.sriov_vi_flexible + 1:
        yield "msix_qsize", "one vector more than sriov_vi_flexible is needed"


def _namespace(one: Namespace) -> Iterator[Problem]:
    if problem := _block_size(one.block_size):
        yield "block_size", problem
    yield from _metadata(one)
    if one.zoned:
        for field, problem in _zoned(one):
            yield f"zoned.{field}", problem
    for number, error in enumerate(one.errors):
        if error.lba + error.blocks > one.blocks:
            yield f"errors[{number}].lba", f"the namespace ends at block {one.blocks}"


def _block_size(size: int) -> str:
    """The upper limit is the one of Linux (BLK_MAX_BLOCK_SIZE); QEMU's is 2 MiB."""
    if size & (size - 1):
        return f"a block is 512 to 65536 bytes, a power of two; {size} is not"
    return ""


def _metadata(one: Namespace) -> Iterator[Problem]:
    if one.mset and not one.ms:
        yield "mset", "without metadata (ms) there is nothing to transfer"
    if not one.pi:
        for field in ("pil", "pif"):
            if getattr(one, field):
                yield field, "there is no protection information (pi)"
    elif one.ms < (needed := GUARD_BYTES[one.pif]):
        yield "pi", f"this protection information needs {needed} bytes of metadata, ms is {one.ms}"


def _zoned(one: Namespace) -> Iterator[Problem]:
    """QEMU rounds sizes down to blocks without a word; here they have to be whole blocks."""
    assert one.zoned is not None
    zoned = one.zoned
    for field in ("zone_size_kib", "zone_capacity_kib"):
        if (getattr(zoned, field) << 10) % one.block_size:
            yield field, f"not a multiple of the block size, {one.block_size} bytes"
    if zoned.zone_capacity_kib > zoned.zone_size_kib:
        yield "zone_capacity_kib", f"more than the zone's size, {zoned.zone_size_kib} KiB"
    if one.blocks * one.block_size < zoned.zone_size_kib << 10:
        yield "zone_size_kib", "the namespace is smaller than one zone"
    if zoned.max_active and zoned.max_open > zoned.max_active:
        yield "max_open", f"an open zone is active, and max_active is {zoned.max_active}"


def _placement(topology: Topology) -> Iterator[Problem]:
    """Flexible data placement, subsystem by subsystem."""
    plans = {subsystem.name: subsystem.fdp for subsystem in topology.subsystems}
    for number, subsystem in enumerate(topology.subsystems):
        if subsystem.fdp and (problem := _groups(subsystem.fdp)):
            yield f"subsystems[{number}].fdp.nrg", problem
    formats: dict[tuple[str, int], tuple[int, int]] = {}
    for place in topology.places():
        namespace = place.namespace
        name = topology.controllers[place.controller].subsystem
        if plan := plans.get(name):
            for field, problem in _placed(namespace, plan):
                yield f"{place.field}.{field}", problem
        elif namespace.ruhs:
            yield f"{place.field}.ruhs", "reclaim unit handles need a subsystem with fdp"
        form = (namespace.block_size, namespace.ms)
        for handle in namespace.ruhs:
            if formats.setdefault((name, handle), form) != form:
                yield f"{place.field}.ruhs", f"handle {handle} has blocks of another format already"


def _placed(one: Namespace, plan: Fdp) -> Iterator[Problem]:
    if one.zoned:
        yield "zoned", "a subsystem with fdp has no zoned namespaces"
    if not one.ruhs:
        # QEMU would choose one itself, as long as one is left that no namespace has
        yield "ruhs", "in a subsystem with fdp a namespace names its reclaim unit handles"
    if len(set(one.ruhs)) < len(one.ruhs):
        yield "ruhs", "a reclaim unit handle is named twice"
    if one.ruhs and max(one.ruhs) >= plan.nruh:
        yield "ruhs", f"the last reclaim unit handle is {plan.nruh - 1} (nruh)"


def _groups(fdp: Fdp) -> str:
    """A placement identifier has 16 bits: the high ones for the group, the rest for the handle."""
    bits = fdp.nrg.bit_length() if fdp.nrg > 1 else 0
    if 0xFFFF >> bits < fdp.nruh:
        return f"{fdp.nrg} groups leave no room for {fdp.nruh} handles in a 16-bit identifier"
    return ""
