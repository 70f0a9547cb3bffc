# SPDX-License-Identifier: GPL-2.0-or-later
"""What hardware a guest has, as values.

Fields that QEMU's devices have too carry QEMU's name for them, and a unit where there is one:
``qemu-system-x86_64 -device nvme,help`` lists them, and docs/system/devices/nvme.rst in QEMU's
tree explains them. `topologies` reads them from files, `rules` refuses fields that do not go
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
# Part of QEMU's node names, which have 31 characters at most.
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z][a-zA-Z0-9_-]{0,15}\Z")]

# Where data is: `file` in a sparse file in the guest's folder; `memory` in one that only the host's
# memory holds; `null` nowhere, so that reads give zeroes (QEMU's null-co).
Backing = Literal["file", "memory", "null"]


class InjectedError(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Logical blocks whose reading or writing fails (QEMU's blkdebug)."""

    on: Literal["read", "write"]
    lba: Count  # the first one
    blocks: Annotated[int, Meta(ge=1, le=256)] = 1
    once: bool = False  # each block fails a single time


class Zoned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a namespace a zoned one."""

    zone_size_kib: Annotated[int, Meta(ge=1)]
    zone_capacity_kib: Count = 0  # 0: the whole zone
    max_open: Uint32 = 0  # zones; 0: all of them
    max_active: Uint32 = 0  # zones; 0: all of them
    cross_read: bool = False  # a read may go on into the next zone
    descr_ext_size: Annotated[int, Meta(ge=0, le=255 * 64, multiple_of=64)] = 0  # bytes


class Namespace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One NVMe namespace; its data is gone with the guest."""

    size_mib: MiB = 512  # with the metadata, if there is any
    block_size: Annotated[int, Meta(ge=512, le=65536)] = 512  # bytes per logical block
    backing: Backing = "file"
    ms: Annotated[int, Meta(ge=0, le=65535)] = 0  # bytes of metadata per logical block
    mset: bool = False  # metadata follows its block (extended LBA), else it has its own buffer
    pi: Literal[0, 1, 2, 3] = 0  # type of protection information
    pil: bool = False  # it stands in the first bytes of the metadata, else in the last
    pif: Literal[0, 2] = 0  # format: 0 has a 16-bit guard, 2 a 64-bit one
    zoned: Zoned | None = None
    ruhs: tuple[Count, ...] = ()  # reclaim unit handles, in an FDP subsystem
    errors: tuple[InjectedError, ...] = ()

    @property
    def blocks(self) -> int:
        """How many logical blocks it has room for."""
        return (self.size_mib << 20) // (self.block_size + self.ms)


class Controller(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One NVMe controller on the PCI bus. The numbers are QEMU's defaults."""

    serial: Serial
    namespaces: tuple[Namespace, ...] = (Namespace(),)  # in a subsystem: its private ones
    subsystem: str = ""  # the name of one; empty: one of its own
    max_ioqpairs: Annotated[int, Meta(ge=1, le=65535)] = 64  # pairs of I/O queues
    msix_qsize: Annotated[int, Meta(ge=1, le=2048)] = 65  # MSI-X vectors
    mqes: Annotated[int, Meta(ge=1, le=65535)] = 2047  # entries of a queue, less one
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
    """An NVM subsystem: what several controllers have in common."""

    name: Name  # its NQN is nqn.2019-08.org.qemu: and this
    namespaces: tuple[Namespace, ...] = ()  # attached to all of its controllers
    fdp: Fdp | None = None


class Disk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A disk that is no NVMe namespace, to compare with."""

    interface: Literal["virtio-blk", "virtio-scsi"]
    serial: Serial
    size_mib: MiB = 512
    block_size: Annotated[int, Meta(ge=512, le=65536)] = 512
    backing: Backing = "file"


class Place(msgspec.Struct, frozen=True):
    """A namespace and where in the guest it is."""

    controller: int  # number of the controller that it comes with
    nsid: int
    namespace: Namespace
    shared: bool  # attached to all controllers of the subsystem
    node: str  # QEMU's name of its data; with .raw, the file's in the guest's folder
    field: str  # where it stands in the topology's file


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guest's hardware."""

    about: str = ""  # one line, for lists
    cpus: Annotated[int, Meta(ge=1, le=255)] = 2
    memory_mib: Annotated[int, Meta(ge=128)] = 1024
    controllers: tuple[Controller, ...] = (Controller("blockyard0"),)
    subsystems: tuple[Subsystem, ...] = ()
    hotplug_ports: Annotated[int, Meta(ge=0, le=16)] = 0  # empty PCIe root ports
    disks: tuple[Disk, ...] = ()
    name: str = ""  # the file's name

    def places(self) -> list[Place]:
        """All namespaces.

        NSIDs are unique in a subsystem: the shared namespaces come first, then the private ones,
        controller by controller.
        """
        found: list[Place] = []
        used: dict[str, int] = {}
        shared = {one.name: (number, one) for number, one in enumerate(self.subsystems)}
        for number, controller in enumerate(self.controllers):
            name = controller.subsystem or f"/{number}"  # no name of a subsystem has a slash
            if name in shared:
                its_number, subsystem = shared.pop(name)
                for at, namespace in enumerate(subsystem.namespaces):
                    nsid = used[name] = used.get(name, 0) + 1
                    field = f"subsystems[{its_number}].namespaces[{at}]"
                    found.append(Place(number, nsid, namespace, True, f"{name}-n{nsid}", field))
            for at, namespace in enumerate(controller.namespaces):
                nsid = used[name] = used.get(name, 0) + 1
                field = f"controllers[{number}].namespaces[{at}]"
                found.append(Place(number, nsid, namespace, False, f"nvme{number}n{nsid}", field))
        return found

    def attached(self, controller: int) -> dict[int, Namespace]:
        """NSID → namespace, of those that the controller of that number has."""
        subsystem = self.controllers[controller].subsystem

        def has(place: Place) -> bool:
            siblings = self.controllers[place.controller].subsystem == subsystem
            return place.controller == controller or (place.shared and siblings)

        return {place.nsid: place.namespace for place in self.places() if has(place)}


DEFAULT = Topology(about="One controller with one namespace of 512-byte blocks", name="default")
