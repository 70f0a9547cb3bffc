# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration of a guest: kernel, files, accelerator, topology and options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, Unpack, get_args

import msgspec

from blockyard.images.files import GuestFiles
from blockyard.images.hardware.topology import DEFAULT, Topology
from blockyard.images.machine import qemu
from blockyard.images.machine.accelerator import Accelerator
from blockyard.kernel import artifact
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import unknown

# boot; start from a snapshot, making it if needed; or use the faster of the two (images.resume)
Start = Literal["boot", "snapshot", "auto"]
STARTS: tuple[Start, ...] = get_args(Start)


def start_named(name: str) -> Start:
    """The name as a `Start`; raises UsageError for an unknown name."""
    for start in STARTS:
        if start == name:
            return start
    raise unknown("start", name, STARTS)


@dataclass(frozen=True)
class VmConfig:
    """The configuration of one guest."""

    kernel: Kernel
    files: GuestFiles
    tools: ToolRoot
    accelerator: Accelerator
    topology: Topology
    directory: Path  # where this guest's kernel log and scratch files go
    ssh: bool = False  # bring up the network and sshd
    shell: bool = False  # a shell on hvc0
    serial: str = ""  # the carrier of the serial console (qemu.SERIAL); empty: the best available
    monitor: bool = False  # QEMU's human monitor, on a socket in the directory
    gdb: bool = False  # gdb's remote protocol, on a socket in the directory
    dump: bool = False  # after a panic, dump the guest's memory into the directory
    saved: bool = False  # its memory is a file, so that it can be saved (images.machine.snapshot)
    start: Start = "boot"

    @property
    def serial_port(self) -> str:
        """The carrier of the serial console, a key of qemu.SERIAL."""
        return self.serial or qemu.best_serial(self.kernel.config)


class GuestOptions(TypedDict, total=False):
    """Fields of `VmConfig` that can differ between guests of one `BootEnv`."""

    ssh: bool
    shell: bool
    serial: str
    monitor: bool
    gdb: bool
    dump: bool
    start: Start


@dataclass(frozen=True)
class BootEnv:
    """The part of the configuration that all guests of one kernel share."""

    kernel: Kernel
    tools: ToolRoot
    files: GuestFiles
    accelerator: Accelerator

    def setup(
        self, directory: Path, *, topology: Topology = DEFAULT, **options: Unpack[GuestOptions]
    ) -> VmConfig:
        """The configuration of one guest; directory: for its kernel log and scratch files."""
        return VmConfig(
            kernel=self.kernel,
            files=self.files,
            tools=self.tools,
            accelerator=self.accelerator,
            topology=topology,
            directory=directory,
            **options,
        )

    @property
    def keys(self) -> EnvKeys:
        """The same as cache keys, without paths of this machine."""
        return EnvKeys(
            kernel=self.kernel.path.name,
            kernel_name=self.kernel.info.name,
            tools=self.tools.path.name,
            root=self.files.root.parent.name,
            modules=self.files.modules.parent.name,
            initramfs=self.files.initramfs.parent.name,
            accelerator=self.accelerator,
        )


class EnvKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A `BootEnv` as keys of cache entries, which are the same on every machine."""

    kernel: str  # key in kernels
    kernel_name: str  # the kernel's name in this run
    tools: str  # key in roots
    root: str  # key in images, as the next two
    modules: str
    initramfs: str
    accelerator: Accelerator

    def resolved(self) -> BootEnv:
        """The environment in this machine's cache; raises Failure when the kernel is not in it."""
        return BootEnv(
            artifact.load(store.path_of("kernels") / self.kernel, self.kernel_name),
            self.tool_root,
            GuestFiles.of_keys(self.root, self.modules, self.initramfs),
            self.accelerator,
        )

    @property
    def tool_root(self) -> ToolRoot:
        """The tool root in this machine's cache."""
        return ToolRoot(store.path_of("roots") / self.tools)
