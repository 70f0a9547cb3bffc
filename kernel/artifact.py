# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that can be booted, whether `build` compiled it or `prebuilt` unpacked it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import msgspec

from blockyard.kernel.config import kconfig
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.described import about
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.sources.origin import Origin

SCHEMA = 1  # of kernel.json
IMAGE = "bzImage"  # the file's name in the cache, for every architecture
UNPACKED = "vmlinux.bin"  # as the kernel's makefiles call it (arch/x86/boot/compressed)


class KernelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of ``kernel.json``."""

    schema: Annotated[int, about("of `kernel.json`")] = SCHEMA
    key: Annotated[str, about("its key in the cache")]
    name: Annotated[str, about("its name in the catalog, or the path or URL that named it")]
    release: Annotated[str, about("uname -r")]
    source: Annotated[Origin, about("where it came from: a value by its `kind`")]
    config_sha256: Annotated[str, about("of its `.config`")]
    exports_sha256: Annotated[
        str, about("of its `Module.symvers`; empty for a prebuilt kernel")
    ] = ""
    toolchain: Annotated[dict[str, str], about("program → version; empty for a prebuilt kernel")]
    wall_s: Annotated[float, about("seconds of elapsed time for the build")] = 0.0
    cpu_s: Annotated[float, about("user and system time of the build, in seconds")] = 0.0
    reused_objects: Annotated[
        int, about("C objects that came from ccache instead of the compiler")
    ] = 0
    warnings: Annotated[dict[str, int], about("source file → compiler warnings")] = {}
    omitted: Annotated[
        dict[str, str],
        about("`Rust`, a driver or `modules` (outside the tree) → the reason"),
    ] = {}
    commands: Annotated[
        tuple[str, ...],
        about(
            "the commands that ran in the build's sandbox, in order; empty for a prebuilt kernel, "
            "and for one that was built before November 2026"
        ),
    ] = ()
    environment: Annotated[dict[str, str], about("environment variables of the commands")] = {}


@dataclass(frozen=True)
class Kernel:
    """A kernel in the cache. The files below `path` are complete, and nothing changes them."""

    path: Path
    info: KernelInfo

    @property
    def image(self) -> Path:
        """What QEMU starts: the unpacked kernel if it has a PVH entry, else the bzImage."""
        unpacked = self.path / UNPACKED
        return unpacked if unpacked.exists() else self.bzimage

    @property
    def bzimage(self) -> Path:
        """The compressed image, which any boot loader can start."""
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
    """Return the kernel in a folder of the cache, under `name` if given.

    Raises Failure if kernel.json is missing or cannot be read.
    """
    try:
        fields = msgspec.json.decode((path / "kernel.json").read_bytes(), type=dict[str, object])
        if "left_out" in fields:  # the name of `omitted` until November 2026
            fields["omitted"] = fields.pop("left_out")
        if isinstance(text := fields.get("source"), str):  # a text until then
            fields["source"] = {"kind": "other", "text": text}
        info = msgspec.convert(fields, KernelInfo)
    except BROKEN_FILE as error:
        raise Failure(
            f"cannot read the kernel in {path}: kernel.json: {error}",
            hint="remove that folder: the kernel is built again when it is needed",
        ) from None
    return Kernel(path, msgspec.structs.replace(info, name=name) if name else info)


def save_info(path: Path, info: KernelInfo) -> None:
    """Write ``kernel.json``, the last step of making a kernel."""
    data = msgspec.json.format(msgspec.json.encode(info), indent=2)
    (path / "kernel.json").write_bytes(data + b"\n")
