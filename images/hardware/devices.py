# SPDX-License-Identifier: GPL-2.0-or-later
"""From a topology to QEMU's devices and what is behind them. Nothing is run here.

Everything is a dictionary in the form of QEMU's QAPI, so that no value has to be escaped and a
device that is there from the start is the same on the command line as one that is plugged in later
is in QMP.

Of a controller that is plugged in, QEMU 10 takes less: its namespaces (``nvme-ns``) and subsystems
cannot be plugged in. It has the one that comes with the ``nvme`` device itself, of plain blocks, or
it joins a subsystem that is there and has the namespaces that are shared in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from blockyard.images.hardware.qapi import Command, Options
from blockyard.images.hardware.topology import (
    Backing,
    Controller,
    Disk,
    InjectedError,
    Namespace,
    Place,
    Topology,
)
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.sandbox import BIND

Item = tuple[str, Options]  # object, blockdev or device; its options

SECTOR = 512  # bytes; blkdebug's unit, whatever the block size
# What a guest writes need not outlive it: no host flushes.
CACHE = {"cache": {"no-flush": True}, "discard": "unmap"}
# Without it the guest is told to leave hot-plug to ACPI, whose driver our kernels do not have.
NATIVE_HOTPLUG = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")

_ADD = {"object": "object-add", "blockdev": "blockdev-add", "device": "device_add"}
# Properties of a controller that QEMU is told of only when they are not its defaults.
_CONTROLLER = (
    "max_ioqpairs",
    "msix_qsize",
    "mqes",
    "mdts",
    "sriov_max_vfs",
    "sriov_vq_flexible",
    "sriov_vi_flexible",
)


def arguments(topology: Topology) -> Iterator[str]:
    """QEMU's arguments for all disks and controllers of a topology, and for its free ports."""
    if topology.hotplug_ports:
        yield from NATIVE_HOTPLUG
    for option, options in items(topology):
        yield from (f"-{option}", msgspec.json.encode(options).decode())


def items(topology: Topology) -> Iterator[Item]:
    """The same as dictionaries."""
    memory = list(memory_files(topology))
    for port in range(topology.hotplug_ports):
        yield _root_port(port_name(port), port + 1)
    for subsystem in topology.subsystems:
        options: Options = {"driver": "nvme-subsys", "id": _subsystem(subsystem.name)}
        options |= {"nqn": subsystem.name}
        if fdp := subsystem.fdp:
            options |= {"fdp": True, "fdp.nruh": fdp.nruh, "fdp.nrg": fdp.nrg}
            options |= {"fdp.runs": fdp.runs_mib << 20}
        yield "device", options
    places = topology.places()
    for number, controller in enumerate(topology.controllers):
        device = f"nvme{number}"
        bus = {}
        if controller.sriov_max_vfs:
            # its functions would take the numbers of other devices on the root bus
            yield _root_port(f"{device}-port", topology.hotplug_ports + number + 1, hotplug=False)
            bus = {"bus": f"{device}-port"}
        yield from _controller(controller, device, bus)
        for place in places:
            if place.controller == number:
                yield "blockdev", _data(place.node, place.namespace, memory)
                yield "device", _namespace(place, private=bool(controller.subsystem))
    yield from _disks(topology.disks, memory)


def backing_files(topology: Topology) -> dict[str, int]:
    """The files in the guest's folder that hold data: name → bytes. They can be sparse."""
    return _files(topology, "file")


def memory_files(topology: Topology) -> dict[str, int]:
    """The files that QEMU inherits as descriptors (`inherited`): name → bytes."""
    return _files(topology, "memory")


def inherited(topology: Topology, descriptors: Mapping[str, int]) -> Iterator[str]:
    """QEMU's arguments that give it the open `memory_files`: name → file descriptor."""
    for number, name in enumerate(memory_files(topology)):
        yield from ("-add-fd", f"fd={descriptors[name]},set={number}")


def port_name(port: int) -> str:
    """QEMU's name of a free PCIe port; they are counted from 0, their slots from 1."""
    return f"port{port}"


def plugged_name(port: int) -> str:
    """QEMU's name of the controller that is plugged into a port, as its events tell it."""
    return f"{port_name(port)}-nvme"


def hotplug(controller: Controller, port: int) -> list[Command]:
    """The QMP commands that plug a controller into a free port.

    Its files (`hotplug_files`) have to be there. Raises UsageError for what QEMU does not take.
    """
    return [(_ADD[option], options) for option, options in _plugged(controller, port)]


def hotplug_files(controller: Controller, port: int) -> dict[str, int]:
    """The files in the guest's folder that a controller needs to be plugged in: name → bytes."""
    return {
        f"{plugged_name(port)}.raw": one.size_mib << 20
        for one in controller.namespaces
        if one.backing == "file"
    }


def unplug(controller: Controller, port: int) -> list[Command]:
    """The QMP commands that take it out again.

    The first asks the guest to let go of it. The others free what was behind it and have to wait
    until the device `plugged_name` is gone (event DEVICE_DELETED).
    """
    names = {"object": ("object-del", "id"), "blockdev": ("blockdev-del", "node-name")}
    behind = [
        (names[option][0], {names[option][1]: options[names[option][1]]})
        for option, options in _plugged(controller, port)
        if option in names
    ]
    return [("device_del", {"id": plugged_name(port)}), *behind]


def _plugged(controller: Controller, port: int) -> Iterator[Item]:
    what = f"controller {controller.serial} cannot be plugged into a running guest"
    if len(controller.namespaces) > (0 if controller.subsystem else 1):
        where = (
            "the shared namespaces of its subsystem" if controller.subsystem else "one namespace"
        )
        raise UsageError(f"{what}: QEMU then gives it {where} and no more")
    device = plugged_name(port)
    extra: Options = {"bus": port_name(port)}
    for namespace in controller.namespaces:
        plain = Namespace(
            namespace.size_mib, namespace.block_size, namespace.backing, errors=namespace.errors
        )
        if namespace != plain or namespace.backing == "memory":
            raise UsageError(
                f"{what}: QEMU then gives it plain blocks in a file, or none behind it"
            )
        yield "blockdev", _data(device, namespace, ())
        extra |= {"drive": device, **_block_sizes(namespace)}
    yield from _controller(controller, device, extra)


def _files(topology: Topology, backing: Backing) -> dict[str, int]:
    owners: list[tuple[str, Namespace | Disk]] = [
        *((place.node, place.namespace) for place in topology.places()),
        *((f"disk{number}", disk) for number, disk in enumerate(topology.disks)),
    ]
    return {f"{node}.raw": one.size_mib << 20 for node, one in owners if one.backing == backing}


def _subsystem(name: str) -> str:
    return f"subsystem-{name}"


def _root_port(name: str, number: int, *, hotplug: bool = True) -> Item:
    options: Options = {"driver": "pcie-root-port", "id": name, "chassis": number, "slot": number}
    return "device", options if hotplug else {**options, "hotplug": False}


def _controller(one: Controller, device: str, extra: Options) -> Iterator[Item]:
    """extra: properties that depend on where it goes."""
    options: Options = {"driver": "nvme", "id": device, "serial": one.serial, **extra}
    if one.subsystem:
        options["subsys"] = _subsystem(one.subsystem)
    plain = Controller(one.serial)
    for name in _CONTROLLER:
        if (value := getattr(one, name)) != getattr(plain, name):
            options[name] = value
    if one.cmb_size_mib:
        options["cmb_size_mb"] = one.cmb_size_mib
    if one.pmr_size_mib:
        pmr = f"{device}-pmr"
        size = one.pmr_size_mib << 20
        yield "object", {"qom-type": "memory-backend-ram", "id": pmr, "size": size}
        options["pmrdev"] = pmr
    yield "device", options


def _block_sizes(one: Namespace | Disk) -> Options:
    return {"logical_block_size": one.block_size, "physical_block_size": one.block_size}


def _namespace(place: Place, *, private: bool) -> Options:
    one = place.namespace
    options: Options = {"driver": "nvme-ns", "bus": f"nvme{place.controller}", "drive": place.node}
    options |= {"nsid": place.nsid, **_block_sizes(one)}
    options |= {"ms": one.ms, "mset": int(one.mset)}
    options |= {"pi": one.pi, "pil": int(one.pil), "pif": one.pif}
    if zoned := one.zoned:
        options |= {
            "zoned": True,
            "zoned.zone_size": zoned.zone_size_kib << 10,
            "zoned.zone_capacity": zoned.zone_capacity_kib << 10,
            "zoned.max_open": zoned.max_open,
            "zoned.max_active": zoned.max_active,
            "zoned.cross_read": zoned.cross_read,
            "zoned.descr_ext_size": zoned.descr_ext_size,
        }
    if one.ruhs:
        options["fdp.ruhs"] = ";".join(map(str, one.ruhs))
    # 0 and off are QEMU's defaults for all of these
    options = {name: value for name, value in options.items() if value}
    return {**options, "shared": False} if private and not place.shared else options


def _disks(disks: Sequence[Disk], memory: Sequence[str]) -> Iterator[Item]:
    if any(disk.interface == "virtio-scsi" for disk in disks):
        yield "device", {"driver": "virtio-scsi-pci", "id": "scsi"}
    for number, disk in enumerate(disks):
        node = f"disk{number}"
        yield "blockdev", _data(node, disk, memory)
        options: Options = {"drive": node, "serial": disk.serial, **_block_sizes(disk)}
        if disk.interface == "virtio-scsi":
            yield "device", {"driver": "scsi-hd", "bus": "scsi.0", **options}
        else:
            yield "device", {"driver": "virtio-blk-pci", **options}


def _data(node: str, one: Namespace | Disk, memory: Sequence[str]) -> Options:
    """The block device of that name; memory: `memory_files`, in their order."""
    if one.backing == "null":
        # reads of what was never written give zeroes on every other backing, too
        data: Options = {"driver": "null-co", "size": one.size_mib << 20, "read-zeroes": True}
    elif one.backing == "memory":
        data = {"driver": "file", "filename": f"/dev/fdset/{memory.index(f'{node}.raw')}", **CACHE}
    else:
        data = {"driver": "file", "filename": f"{BIND}/run/{node}.raw", **CACHE}
    errors = one.errors if isinstance(one, Namespace) else ()
    if errors:
        rules = [rule for error in errors for rule in _rules(error, one.block_size)]
        data = {"driver": "blkdebug", "image": data, "inject-error": rules, **CACHE}
    return {**data, "node-name": node}


def _rules(error: InjectedError, block_size: int) -> Iterator[Options]:
    """A rule hits a request that has its sector; the first one of each block is enough."""
    for lba in range(error.lba, error.lba + error.blocks):
        rule: Options = {"event": "none", "iotype": error.on, "sector": lba * block_size // SECTOR}
        yield {**rule, "once": True} if error.once else rule
