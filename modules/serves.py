# SPDX-License-Identifier: GPL-2.0-or-later
"""The NVMe namespaces that a driver supports: ``[serves]`` in its manifest.

A young driver may support only one namespace with plain blocks. Its tests on other hardware are
skipped with the reason, without booting a guest to find out.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from blockyard.images.hardware.topology import Topology

Size = Annotated[int, msgspec.Meta(ge=512, le=65536)]


class Serves(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Supported features of namespaces. The defaults mean that all are supported."""

    zoned: bool = True  # the zoned command set
    metadata: bool = True  # bytes of metadata with each block, protection information included
    namespaces: Annotated[int, msgspec.Meta(ge=0)] = 0  # of a controller, at most; 0: any number
    block_sizes: tuple[Size, ...] = ()  # bytes per logical block; empty: all

    def problem(self, topology: Topology) -> str:
        """What the driver does not support in a topology; empty when it supports everything."""
        for number in range(len(topology.controllers)):
            namespaces = topology.attached(number)
            if self.namespaces and len(namespaces) > self.namespaces:
                most = "one namespace" if self.namespaces == 1 else f"{self.namespaces} namespaces"
                return f"no more than {most} of a controller, and {topology.name} has more"
            for namespace in namespaces.values():
                if namespace.zoned and not self.zoned:
                    return f"no zoned namespaces, which {topology.name} has"
                if namespace.ms and not self.metadata:
                    return f"no metadata, which {topology.name} has"
                if self.block_sizes and namespace.block_size not in self.block_sizes:
                    return f"no blocks of {namespace.block_size} bytes, which {topology.name} has"
        return ""
