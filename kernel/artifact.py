# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that can be booted, however it came to be: what `build` and `prebuilt` both return."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec

from blockyard.kernel.config import kconfig
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure

SCHEMA = 1  # of kernel.json
IMAGE = "bzImage"  # of any architecture: entries of the cache have had it from the start
UNPACKED = "vmlinux.bin"  # what the kernel's makefiles call it (arch/x86/boot/compressed)


class KernelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What ``kernel.json`` says about a kernel."""

    schema: int = SCHEMA
    key: str  # names it in the cache
    name: str  # as in the catalog
    release: str  # uname -r
    source: str  # where it came from, e.g. "debian linux-source-7.3 7.3.4-1~bpo13+1"
    config_sha256: str
    exports_sha256: str = ""  # of Module.symvers; empty for a prebuilt kernel
    toolchain: dict[str, str]  # program → version; empty for a prebuilt kernel
    wall_s: float = 0.0  # what the build took
    cpu_s: float = 0.0  # user and system time of the build
    reused_objects: int = 0  # C objects that ccache had, so that wall_s and cpu_s are less
    warnings: dict[str, int] = {}  # source file → compiler warnings
    # "Rust", a driver or "modules" (from outside) → why this kernel is without
    omitted: dict[str, str] = {}
    # what was run in the build's sandbox, in this order, and the environment that it had; empty for
    # a prebuilt kernel, and for one that was built before November 2026
    commands: tuple[str, ...] = ()
    environment: dict[str, str] = {}


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache. The files below `path` are complete and never change."""

    path: Path
    info: KernelInfo

    @property
    def image(self) -> Path:
        """What QEMU starts: the unpacked kernel when it has a PVH entry, else the bzImage."""
        unpacked = self.path / UNPACKED
        return unpacked if unpacked.exists() else self.bzimage

    @property
    def bzimage(self) -> Path:
        """What any boot loader starts."""
        return self.path / IMAGE

    @property
    def modules(self) -> Path:
        """The folder that becomes ``/lib/modules/<release>``, with modules.dep."""
        return self.path / "modules" / self.info.release

    @cached_property
    def config(self) -> dict[str, str]:
        """Symbol (without ``CONFIG_``) → value; a symbol that is off is absent or ``n``."""
        return kconfig.parse((self.path / "config").read_text(errors="replace"))


def load(path: Path, name: str = "") -> Kernel:
    """A kernel from its folder in the cache; `name`: what it is called this time.

    Raises Failure when the folder does not say what it holds.
    """
    try:
        fields = msgspec.json.decode((path / "kernel.json").read_bytes(), type=dict[str, object])
        if "left_out" in fields:  # the name of `omitted` until November 2026
            fields["omitted"] = fields.pop("left_out")
        info = msgspec.convert(fields, KernelInfo)
    except BROKEN_FILE as error:
        raise Failure(
            f"the kernel in {path} cannot be read: kernel.json: {error}",
            hint="remove that folder: the kernel is made again when it is needed",
        ) from None
    return Kernel(path, msgspec.structs.replace(info, name=name) if name else info)


def save_info(path: Path, info: KernelInfo) -> None:
    """Writes ``kernel.json``: the last step of making a kernel."""
    data = msgspec.json.format(msgspec.json.encode(info), indent=2)
    (path / "kernel.json").write_bytes(data + b"\n")
