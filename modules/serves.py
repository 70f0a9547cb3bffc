# SPDX-License-Identifier: GPL-2.0-or-later
"""Which NVMe namespaces a driver serves, as its manifest's ``[serves]`` says.

A young driver knows plain blocks of one namespace. On other hardware its tests are skipped, with
what it does not serve as the reason, and no guest is booted to find that out.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from blockyard.images.hardware.topology import Topology

Size = Annotated[int, msgspec.Meta(ge=512, le=65536)]


class Serves(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of the hardware a driver serves; what is not named it does."""

    zoned: bool = True  # the zoned command set
    metadata: bool = True  # bytes of metadata with each block, protection information included
    namespaces: Annotated[int, msgspec.Meta(ge=0)] = 0  # of a controller, at most; 0: any number
    block_sizes: tuple[Size, ...] = ()  # bytes per logical block; empty: all

    def problem(self, topology: Topology) -> str:
        """What of a topology is not served; empty when all is."""
        for number in range(len(topology.controllers)):
            namespaces = topology.attached(number)
            if self.namespaces and len(namespaces) > self.namespaces:
                most = "one namespace" if self.namespaces == 1 else f"{self.namespaces} namespaces"
                return f"no more than {most} of a controller, and {topology.name} has more"
            for one in namespaces.values():
                if one.zoned and not self.zoned:
                    return f"no zoned namespaces, which {topology.name} has"
                if one.ms and not self.metadata:
                    return f"no metadata, which {topology.name} has"
                if self.block_sizes and one.block_size not in self.block_sizes:
                    return f"no blocks of {one.block_size} bytes, which {topology.name} has"
        return ""
