# SPDX-License-Identifier: GPL-2.0-or-later
"""What hardware a guest has, as values."""

from __future__ import annotations

import msgspec


class Namespace(msgspec.Struct, frozen=True):
    """One NVMe namespace, kept in a sparse file that is gone with the guest."""

    size_mib: int = 512
    block_size: int = 512  # bytes per logical block


class Controller(msgspec.Struct, frozen=True):
    """One NVMe controller on the PCI bus."""

    serial: str
    namespaces: tuple[Namespace, ...] = (Namespace(),)


class Topology(msgspec.Struct, frozen=True):
    """A guest's hardware."""

    cpus: int = 2
    memory_mib: int = 1024
    controllers: tuple[Controller, ...] = (Controller("blockyard0"),)


DEFAULT = Topology()
