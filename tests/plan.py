# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is to do, as one value that is written to a file for pytest and its workers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from images.accelerator import Accelerator
from images.files import GuestFiles
from images.setup import Setup, Start
from images.topology import DEFAULT, Topology
from kernel import artifact
from kernel.artifact import Kernel
from kernel.host.debian import ToolRoot
from modules import manifest
from modules.manifest import Manifest


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to boot guests and test drivers in them.

    What only a boot needs is empty in the plan of a run that lists its tests.
    """

    drivers: tuple[str, ...]
    consoles: tuple[str, ...]
    folders: tuple[str, ...] = ()  # of drivers outside the kernel tree
    directory: str = ""  # of the run: guests' folders are made below it
    kernel: str = ""  # the kernel's folder in the cache
    kernel_name: str = ""  # what it is called in this run
    tools: str = ""  # the tool root's folder
    root: str = ""  # images, see images.files.GuestFiles
    modules: str = ""
    initramfs: str = ""
    accelerator: str = ""
    accelerator_reason: str = ""
    accelerator_scale: float = 1.0
    topology: Topology = DEFAULT
    start: Start = "boot"
    lacking: str = ""  # why QEMU cannot emulate it: every test is skipped

    def manifest(self, name: str) -> Manifest:
        """The manifest of one of the drivers."""
        for folder in self.folders:
            if Path(folder).name == name:
                return manifest.of_folder(Path(folder))
        return manifest.load(name)

    def load_kernel(self) -> Kernel:
        """The kernel under test."""
        return artifact.load(Path(self.kernel), self.kernel_name)

    def setup(self, kernel: Kernel, directory: Path, *, ssh: bool) -> Setup:
        """How one guest of this run is booted."""
        return Setup(
            kernel=kernel,
            files=GuestFiles(Path(self.root), Path(self.modules), Path(self.initramfs)),
            tools=ToolRoot(Path(self.tools)),
            accelerator=Accelerator(
                self.accelerator, self.accelerator_reason, self.accelerator_scale
            ),
            topology=self.topology,
            directory=directory,
            ssh=ssh,
            start=self.start,
        )


def read(path: str) -> Plan:
    """The plan in a file."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Plan)
