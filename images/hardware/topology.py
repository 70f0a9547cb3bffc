# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's hardware, as values.

Fields that are properties of QEMU's devices have QEMU's names, with a unit where there is one.
``qemu-system-x86_64 -device nvme,help`` lists them, and docs/system/devices/nvme.rst in QEMU's tree
explains them. `topologies` reads topologies from files, `rules` rejects fields that do not go
together.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
Uint32 = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
MiB = Annotated[int, Meta(ge=1, le=1 << 24)]
# The serial number is 20 bytes of ASCII (NVMe base specification, Identify Controller, SN).
Serial = Annotated[str, Meta(pattern=r"^[!-~]([ -~]{0,18}[!-~])?\Z")]
# Part of QEMU's node names, which have at most 31 characters.
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z][a-zA-Z0-9_-]{0,15}\Z")]

# Where the data is stored: `file`: in a sparse file in the guest's folder; `memory`: in a memfd;
# `null`: nowhere, reads return zeroes (QEMU's null-co).
Backing = Literal["file", "memory", "null"]


class InjectedError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Logical blocks that cannot be read or written (QEMU's blkdebug)."""

    on: Literal["read", "write"]
    lba: Count  # the first block
    blocks: Annotated[int, Meta(ge=1, le=256)] = 1
    once: bool = False  # each block fails only once


class Zoned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The zones of a zoned namespace."""

    zone_size_kib: Annotated[int, Meta(ge=1)]
    zone_capacity_kib: Count = 0  # 0: the whole zone
    max_open: Uint32 = 0  # zones; 0: all of them
    max_active: Uint32 = 0  # zones; 0: all of them
    cross_read: bool = False  # a read may cross into the next zone
    descr_ext_size: Annotated[int, Meta(ge=0, le=255 * 64, multiple_of=64)] = 0  # bytes


class Namespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One NVMe namespace; its data is removed with the guest."""

    size_mib: MiB = 512  # including metadata
    block_size: Annotated[int, Meta(ge=512, le=65536)] = 512  # bytes per logical block
    backing: Backing = "file"
    ms: Annotated[int, Meta(ge=0, le=65535)] = 0  # bytes of metadata per logical block
    mset: bool = False  # metadata follows its block (extended LBA), else is in a separate buffer
    pi: Literal[0, 1, 2, 3] = 0  # type of protection information; 0: none
    pil: bool = False  # it is in the first bytes of the metadata, else in the last
    pif: Literal[0, 2] = 0  # its format: 0 has a 16-bit guard, 2 a 64-bit guard
    zoned: Zoned | None = None
    ruhs: tuple[Count, ...] = ()  # reclaim unit handles, in an FDP subsystem
    errors: tuple[InjectedError, ...] = ()

    @property
    def blocks(self) -> int:
        """The number of logical blocks."""
        return (self.size_mib << 20) // (self.block_size + self.ms)


class Controller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One NVMe controller on the PCI bus. Default values are QEMU's."""

    serial: Serial
    namespaces: tuple[Namespace, ...] = (Namespace(),)  # private if the subsystem is shared
    subsystem: str = ""  # name of a shared subsystem; empty: it has its own
    max_ioqpairs: Annotated[int, Meta(ge=1, le=65535)] = 64  # pairs of I/O queues
    msix_qsize: Annotated[int, Meta(ge=1, le=2048)] = 65  # MSI-X vectors
    mqes: Annotated[int, Meta(ge=1, le=65535)] = 2047  # entries of a queue, minus one
    mdts: Annotated[int, Meta(ge=1, le=9)] = 7  # largest transfer: 2^mdts pages of 4 KiB
    cmb_size_mib: Count = 0  # controller memory buffer
    pmr_size_mib: Count = 0  # persistent memory region
    sriov_max_vfs: Annotated[int, Meta(ge=0, le=127)] = 0  # virtual functions
    sriov_vq_flexible: Annotated[int, Meta(ge=0, le=65535)] = 0  # queues for all of them
    sriov_vi_flexible: Annotated[int, Meta(ge=0, le=65535)] = 0  # vectors for all of them


class Fdp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Flexible data placement: one endurance group."""

    nruh: Annotated[int, Meta(ge=1, le=128)]  # reclaim unit handles
    nrg: Annotated[int, Meta(ge=1, le=32767)] = 1  # reclaim groups
    runs_mib: MiB = 96  # nominal size of a reclaim unit


class Subsystem(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An NVM subsystem: the namespaces that several controllers share."""

    name: Name  # its NQN is "nqn.2019-08.org.qemu:" + name
    namespaces: tuple[Namespace, ...] = ()  # attached to all of its controllers
    fdp: Fdp | None = None


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A virtio disk, to compare with NVMe."""

    interface: Literal["virtio-blk", "virtio-scsi"]
    serial: Serial
    size_mib: MiB = 512
    block_size: Annotated[int, Meta(ge=512, le=65536)] = 512
    backing: Backing = "file"


class NamespaceEntry(msgspec.Struct, frozen=True):
    """A namespace with its NSID and its controller."""

    controller: int  # index of the controller whose bus it is on
    nsid: int
    namespace: Namespace
    shared: bool  # attached to all controllers of the subsystem
    node: str  # QEMU's name of its data; NODE.raw is the file in the guest's folder
    field: str  # its path in the topology's file, such as controllers[0].namespaces[1]


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guest's hardware: CPUs, memory, controllers and disks."""

    about: str = ""  # one line, for lists
    cpus: Annotated[int, Meta(ge=1, le=255)] = 2
    memory_mib: Annotated[int, Meta(ge=128)] = 1024
    controllers: tuple[Controller, ...] = (Controller("blockyard0"),)
    subsystems: tuple[Subsystem, ...] = ()
    hotplug_ports: Annotated[int, Meta(ge=0, le=16)] = 0  # empty PCIe root ports
    disks: tuple[Disk, ...] = ()
    name: str = ""  # the file's name without .toml

    def all_namespaces(self) -> list[NamespaceEntry]:
        """All namespaces, with their NSIDs, which are unique in a subsystem.

        The shared namespaces of a subsystem are numbered first, then the private namespaces,
        controller by controller.
        """
        entries: list[NamespaceEntry] = []
        used: dict[str, int] = {}  # the last NSID, by subsystem
        shared = {subsystem.name: (at, subsystem) for at, subsystem in enumerate(self.subsystems)}
        for number, controller in enumerate(self.controllers):
            name = controller.subsystem or f"/{number}"  # names of subsystems have no slash
            if name in shared:
                index, subsystem = shared.pop(name)
                for at, namespace in enumerate(subsystem.namespaces):
                    nsid = used[name] = used.get(name, 0) + 1
                    node, field = f"{name}-n{nsid}", f"subsystems[{index}].namespaces[{at}]"
                    entries.append(NamespaceEntry(number, nsid, namespace, True, node, field))
            for at, namespace in enumerate(controller.namespaces):
                nsid = used[name] = used.get(name, 0) + 1
                node, field = f"nvme{number}n{nsid}", f"controllers[{number}].namespaces[{at}]"
                entries.append(NamespaceEntry(number, nsid, namespace, False, node, field))
        return entries

    def attached(self, controller: int) -> dict[int, Namespace]:
        """NSID → namespace, of all namespaces attached to the controller with that index."""
        subsystem = self.controllers[controller].subsystem

        def has(entry: NamespaceEntry) -> bool:
            siblings = self.controllers[entry.controller].subsystem == subsystem
            return entry.controller == controller or (entry.shared and siblings)

        return {entry.nsid: entry.namespace for entry in self.all_namespaces() if has(entry)}


DEFAULT = Topology(about="One controller with one namespace of 512-byte blocks", name="default")
