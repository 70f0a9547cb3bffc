# SPDX-License-Identifier: GPL-2.0-or-later
"""Processor architectures as data: a TOML file for each that kernels are built and booted for.

There is one, x86_64. Another would be a file here, and a choice in `target`.
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
    unpacked: str  # the same without compression and decompressor, which QEMU starts sooner
    unpacked_needs: str  # the symbol, without CONFIG_, of a kernel that can be started so


class Serial(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The serial ports of QEMU's machine: their devices in the guest, below /dev."""

    log: str  # carries the kernel log
    second: str


class Qemu(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The emulator."""

    program: str
    package: str  # Debian's, of the tool root
    machine: str  # of -machine
    firmware: str  # of -bios
    cpus: dict[str, str]  # accelerator → -cpu


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What differs between processors."""

    name: str  # as `uname -m` has it
    srcarch: str  # the kernel's folder for it, below arch/
    command_line: tuple[str, ...]  # what its kernels are told besides
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
