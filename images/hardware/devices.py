# SPDX-License-Identifier: GPL-2.0-or-later
"""Translates a topology into QEMU's devices and their backends. Runs nothing.

Each device is a dictionary in the form of QEMU's QAPI. So no value has to be escaped, and a device
on the command line has the same form as one that is plugged in over QMP.

QEMU 10 limits controllers that are plugged in: their namespaces (``nvme-ns``) and subsystems cannot
be plugged in. Such a controller has the one namespace of the ``nvme`` device itself, with plain
blocks, or it joins an existing subsystem and gets the namespaces that are shared there.
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
    NamespaceEntry,
    Topology,
)
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.sandbox import BIND

Item = tuple[str, Options]  # object, blockdev or device; its options

SECTOR = 512  # bytes; blkdebug's unit, independent of the block size
# The data is removed with the guest, so the host need not flush it.
CACHE = {"cache": {"no-flush": True}, "discard": "unmap"}
# By default QEMU makes the guest use ACPI hot-plug, and our kernels do not have its driver.
NATIVE_HOTPLUG = ("-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")

_ADD = {"object": "object-add", "blockdev": "blockdev-add", "device": "device_add"}
# Properties of a controller that are passed to QEMU only when they differ from its defaults.
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
    """QEMU's arguments for all disks, controllers and free ports of a topology."""
    if topology.hotplug_ports:
        yield from NATIVE_HOTPLUG
    for option, options in items(topology):
        yield from (f"-{option}", msgspec.json.encode(options).decode())


def items(topology: Topology) -> Iterator[Item]:
    """All objects, block devices and devices of a topology, in the order that QEMU needs."""
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
    namespaces = topology.all_namespaces()
    for number, controller in enumerate(topology.controllers):
        device = f"nvme{number}"
        bus: Options = {}
        if controller.sriov_max_vfs:
            # on the root bus its functions would use the device numbers of others
            yield _root_port(f"{device}-port", topology.hotplug_ports + number + 1, hotplug=False)
            bus = {"bus": f"{device}-port"}
        yield from _controller(controller, device, bus)
        for entry in namespaces:
            if entry.controller == number:
                yield "blockdev", _data(entry.node, entry.namespace, memory)
                yield "device", _namespace(entry, private=bool(controller.subsystem))
    yield from _disks(topology.disks, memory)


def backing_files(topology: Topology) -> dict[str, int]:
    """The files with data in the guest's folder: name → size in bytes. They can be sparse."""
    return _files(topology, "file")


def memory_files(topology: Topology) -> dict[str, int]:
    """The files that QEMU inherits as descriptors (`inherited`): name → size in bytes."""
    return _files(topology, "memory")


def inherited(topology: Topology, descriptors: Mapping[str, int]) -> Iterator[str]:
    """QEMU's arguments for the open `memory_files`; descriptors: name → file descriptor."""
    for number, name in enumerate(memory_files(topology)):
        yield from ("-add-fd", f"fd={descriptors[name]},set={number}")


def port_name(port: int) -> str:
    """QEMU's name of a free PCIe port. Ports are counted from 0, their slots from 1."""
    return f"port{port}"


def plugged_name(port: int) -> str:
    """QEMU's name of the controller in a port, as in its events."""
    return f"{port_name(port)}-nvme"


def hotplug(controller: Controller, port: int) -> list[Command]:
    """The QMP commands that plug a controller into a free port.

    Its files (`hotplug_files`) have to exist. Raises UsageError for a controller that QEMU cannot
    plug in.
    """
    return [(_ADD[option], options) for option, options in _plugged(controller, port)]


def hotplug_files(controller: Controller, port: int) -> dict[str, int]:
    """Files in the guest's folder that `hotplug` needs: name → size in bytes."""
    return {
        f"{plugged_name(port)}.raw": namespace.size_mib << 20
        for namespace in controller.namespaces
        if namespace.backing == "file"
    }


def unplug(controller: Controller, port: int) -> list[Command]:
    """The QMP commands that unplug a controller again.

    The first asks the guest to release it. The others remove its backends; send them when the
    device `plugged_name` is gone (event DEVICE_DELETED).
    """
    names = {"object": ("object-del", "id"), "blockdev": ("blockdev-del", "node-name")}
    backends = [
        (names[option][0], {names[option][1]: options[names[option][1]]})
        for option, options in _plugged(controller, port)
        if option in names
    ]
    return [("device_del", {"id": plugged_name(port)}), *backends]


def _plugged(controller: Controller, port: int) -> Iterator[Item]:
    what = f"controller {controller.serial} cannot be plugged into a running guest"
    if len(controller.namespaces) > (0 if controller.subsystem else 1):
        where = (
            "the shared namespaces of its subsystem" if controller.subsystem else "one namespace"
        )
        raise UsageError(f"{what}: QEMU then gives it only {where}")
    device = plugged_name(port)
    extra: Options = {"bus": port_name(port)}
    for namespace in controller.namespaces:
        plain = Namespace(
            namespace.size_mib, namespace.block_size, namespace.backing, errors=namespace.errors
        )
        if namespace != plain or namespace.backing == "memory":
            raise UsageError(f"{what}: QEMU then supports only plain blocks, backing file or null")
        yield "blockdev", _data(device, namespace, ())
        extra |= {"drive": device, **_block_sizes(namespace)}
    yield from _controller(controller, device, extra)


def _files(topology: Topology, backing: Backing) -> dict[str, int]:
    owners: list[tuple[str, Namespace | Disk]] = [
        *((entry.node, entry.namespace) for entry in topology.all_namespaces()),
        *((f"disk{number}", disk) for number, disk in enumerate(topology.disks)),
    ]
    return {f"{node}.raw": disk.size_mib << 20 for node, disk in owners if disk.backing == backing}


def _subsystem(name: str) -> str:
    return f"subsystem-{name}"


def _root_port(name: str, number: int, *, hotplug: bool = True) -> Item:
    options: Options = {"driver": "pcie-root-port", "id": name, "chassis": number, "slot": number}
    return "device", options if hotplug else {**options, "hotplug": False}


def _controller(controller: Controller, device: str, extra: Options) -> Iterator[Item]:
    """extra: properties that depend on its bus."""
    options: Options = {"driver": "nvme", "id": device, "serial": controller.serial, **extra}
    if controller.subsystem:
        options["subsys"] = _subsystem(controller.subsystem)
    plain = Controller(controller.serial)
    for name in _CONTROLLER:
        if (value := getattr(controller, name)) != getattr(plain, name):
            options[name] = value
    if controller.cmb_size_mib:
        options["cmb_size_mb"] = controller.cmb_size_mib
    if controller.pmr_size_mib:
        pmr = f"{device}-pmr"
        size = controller.pmr_size_mib << 20
        yield "object", {"qom-type": "memory-backend-ram", "id": pmr, "size": size}
        options["pmrdev"] = pmr
    yield "device", options


def _block_sizes(disk: Namespace | Disk) -> Options:
    return {"logical_block_size": disk.block_size, "physical_block_size": disk.block_size}


def _namespace(entry: NamespaceEntry, *, private: bool) -> Options:
    """private: whether an entry that is not shared has to be marked so."""
    namespace = entry.namespace
    options: Options = {"driver": "nvme-ns", "bus": f"nvme{entry.controller}", "drive": entry.node}
    options |= {"nsid": entry.nsid, **_block_sizes(namespace)}
    options |= {"ms": namespace.ms, "mset": int(namespace.mset)}
    options |= {"pi": namespace.pi, "pil": int(namespace.pil), "pif": namespace.pif}
    if zoned := namespace.zoned:
        options |= {
            "zoned": True,
            "zoned.zone_size": zoned.zone_size_kib << 10,
            "zoned.zone_capacity": zoned.zone_capacity_kib << 10,
            "zoned.max_open": zoned.max_open,
            "zoned.max_active": zoned.max_active,
            "zoned.cross_read": zoned.cross_read,
            "zoned.descr_ext_size": zoned.descr_ext_size,
        }
    if namespace.ruhs:
        options["fdp.ruhs"] = ";".join(map(str, namespace.ruhs))
    # 0 and off are QEMU's defaults for all of these
    options = {name: value for name, value in options.items() if value}
    return {**options, "shared": False} if private and not entry.shared else options


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


def _data(node: str, disk: Namespace | Disk, memory: Sequence[str]) -> Options:
    """The block device `node`; memory: names of `memory_files`, in order."""
    if disk.backing == "null":
        # as on the other backings, blocks that were never written read as zeroes
        data: Options = {"driver": "null-co", "size": disk.size_mib << 20, "read-zeroes": True}
    elif disk.backing == "memory":
        data = {"driver": "file", "filename": f"/dev/fdset/{memory.index(f'{node}.raw')}", **CACHE}
    else:
        data = {"driver": "file", "filename": f"{BIND}/run/{node}.raw", **CACHE}
    errors = disk.errors if isinstance(disk, Namespace) else ()
    if errors:
        rules = [rule for error in errors for rule in _rules(error, disk.block_size)]
        data = {"driver": "blkdebug", "image": data, "inject-error": rules, **CACHE}
    return {**data, "node-name": node}


def _rules(error: InjectedError, block_size: int) -> Iterator[Options]:
    """One rule per block: it applies to requests with the block's first sector."""
    for lba in range(error.lba, error.lba + error.blocks):
        rule: Options = {"event": "none", "iotype": error.on, "sector": lba * block_size // SECTOR}
        yield {**rule, "once": True} if error.once else rule
