# SPDX-License-Identifier: GPL-2.0-or-later
"""Architectures that kernels are built and booted for, as data: one TOML file for each.

There is only x86_64. Another one needs a file here, and a choice in `target`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from blockyard.kernel.host import toml


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The kernel's image in its output tree."""

    target: str  # of make
    path: str  # what boot loaders start
    unpacked: str  # the uncompressed kernel, with which QEMU boots faster
    unpacked_needs: str  # the symbol, without CONFIG_, that this needs


class Serial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The serial ports of QEMU's machine: their devices in the guest, below /dev."""

    log: str  # carries the kernel log
    second: str


class Qemu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The emulator."""

    program: str
    package: str  # its Debian package, in the tool root
    machine: str  # argument of -machine
    firmware: str  # argument of -bios
    cpus: dict[str, str]  # accelerator → argument of -cpu


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that differs between architectures."""

    name: str  # as `uname -m` prints it
    srcarch: str  # its folder below arch/ in the kernel tree
    command_line: tuple[str, ...]  # further kernel parameters
    image: Image
    serial: Serial
    qemu: Qemu

    @property
    def tiny_config(self) -> str:
        """Its part of the kernel's tinyconfig, in the source tree."""
        return f"arch/{self.srcarch}/configs/tiny.config"

    @property
    def generated(self) -> str:
        """The folder of generated headers, in an output tree."""
        return f"arch/{self.srcarch}/include/generated"


@cache
def target() -> Architecture:
    """The architecture that kernels are built and booted for."""
    return toml.read(Path(__file__).with_name("x86_64.toml"), Architecture, "the architecture")
