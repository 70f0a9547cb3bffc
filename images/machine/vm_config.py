# SPDX-License-Identifier: GPL-2.0-or-later
"""What to boot, and on what, as values."""

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

# boot; from a snapshot, made if need be; or from one where that is known to be faster
Start = Literal["boot", "snapshot", "auto"]
STARTS: tuple[Start, ...] = get_args(Start)


def start_named(name: str) -> Start:
    """One of the ways to start a guest; raises UsageError for another."""
    for start in STARTS:
        if start == name:
            return start
    raise unknown("start", name, STARTS)


@dataclass(frozen=True)
class VmConfig:
    """One guest."""

    kernel: Kernel
    files: GuestFiles
    tools: ToolRoot
    accelerator: Accelerator
    topology: Topology
    directory: Path  # where this guest's kernel log and scratch files go
    ssh: bool = False  # bring up the network and sshd
    shell: bool = False  # a shell on hvc0
    serial: str = ""  # what carries the serial console (qemu.SERIAL); empty: the best there is
    monitor: bool = False  # QEMU's monitor for people, on a socket in the directory
    gdb: bool = False  # gdb's protocol, on a socket in the directory
    dump: bool = False  # a panic leaves the guest's memory in the directory
    saved: bool = False  # its memory is a file, so that it can be saved (images.machine.snapshot)
    start: Start = "boot"

    @property
    def serial_port(self) -> str:
        """What carries the serial console in this kernel."""
        return self.serial or qemu.best_serial(self.kernel.config)


class GuestOptions(TypedDict, total=False):
    """The fields of `VmConfig` in which the guests of one environment differ."""

    ssh: bool
    shell: bool
    serial: str
    monitor: bool
    gdb: bool
    dump: bool
    start: Start


@dataclass(frozen=True)
class BootEnv:
    """What the guests of one kernel have in common."""

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
        """The same without paths of this machine."""
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
    """A `BootEnv` as keys of the cache's entries, the same on every machine that has them."""

    kernel: str  # in kernels
    kernel_name: str  # what it is called in this run
    tools: str  # in roots
    root: str  # in images, as the next two
    modules: str
    initramfs: str
    accelerator: Accelerator

    def resolved(self) -> BootEnv:
        """The environment in this machine's cache; raises Failure when it has no such kernel."""
        return BootEnv(
            artifact.load(store.place("kernels") / self.kernel, self.kernel_name),
            self.tool_root,
            GuestFiles.of_keys(self.root, self.modules, self.initramfs),
            self.accelerator,
        )

    @property
    def tool_root(self) -> ToolRoot:
        """The tool root in this machine's cache."""
        return ToolRoot(store.place("roots") / self.tools)
