# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the function of a kernel that an address is in."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from blockyard.kernel.artifact import Kernel


@dataclass(frozen=True)
class Symbols:
    """The functions of a kernel, sorted by address."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(kernel: Kernel) -> Symbols:
        """The functions in System.map ("address type name"); empty for a kernel without one."""
        try:
            lines = (kernel.path / "System.map").read_text().splitlines()
        except FileNotFoundError:
            return Symbols((), ())
        text = [line.split() for line in lines if line.split()[1] in "tTwW"]
        pairs = sorted((int(address, 16), name) for address, _, name in text)
        return Symbols(tuple(address for address, _ in pairs), tuple(name for _, name in pairs))

    def name(self, address: int) -> str:
        """``function+0xoffset`` as the kernel prints it; the address when no function has it."""
        at = bisect.bisect_right(self.addresses, address) - 1
        if at < 0 or at == len(self.names) - 1:  # below the kernel; in a module or user space
            return f"{address:#x}"
        return f"{self.names[at]}+{address - self.addresses[at]:#x}"
