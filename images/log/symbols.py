# SPDX-License-Identifier: GPL-2.0-or-later
"""From an address in a kernel to the function it is in."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from blockyard.kernel.artifact import Kernel


@dataclass(frozen=True)
class Symbols:
    """The addresses of a kernel's functions, in their order, and their names."""

    addresses: tuple[int, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(kernel: Kernel) -> Symbols:
        """From System.map ("address type name"); empty for a kernel that came without."""
        try:
            lines = (kernel.path / "System.map").read_text().splitlines()
        except FileNotFoundError:
            return Symbols((), ())
        text = [line.split() for line in lines if line.split()[1] in "tTwW"]
        pairs = sorted((int(address, 16), name) for address, _, name in text)
        return Symbols(tuple(address for address, _ in pairs), tuple(name for _, name in pairs))

    def name(self, address: int) -> str:
        """Function and offset, as the kernel writes them; the address when it is in none."""
        at = bisect.bisect_right(self.addresses, address) - 1
        if at < 0 or at == len(self.names) - 1:  # before the first; a module, or user space
            return f"{address:#x}"
        return f"{self.names[at]}+{address - self.addresses[at]:#x}"
