# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is to do, as one value that is written to a file for pytest and its workers."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec

from blockyard.images.files import GuestFiles
from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import DEFAULT, Topology
from blockyard.images.machine import qemu_features
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.vm_config import Start, VmConfig
from blockyard.kernel import artifact
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host.debian import ToolRoot
from blockyard.modules import manifest
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness import budget
from blockyard.tests.harness.upstream import Upstream


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
    topology: Topology = DEFAULT  # of guests whose tests ask for none
    start: Start = "boot"
    smoke: bool = False  # only tests that are marked so, and those of drivers' own folders
    budget: budget.Name = "default"
    own: bool = False  # whether it is of a driver's own tests, in an enclosure
    upstream: Upstream | None = None  # what of blktests is to be run, in place of suites

    def manifest(self, name: str) -> Manifest:
        """The manifest of one of the drivers."""
        for folder in self.folders:
            if manifest.name_of(Path(folder)) == name:
                return manifest.of_folder(Path(folder))
        return manifest.load(name)

    def slot_names(self) -> list[str]:
        """The names of all slots that tests may have; see guests.Slot."""
        hardware = ("", *(f"-{name}" for name in topologies.names()))
        slots = itertools.product(self.drivers, self.consoles, hardware)
        return [f"{driver}-{console}{name}" for driver, console, name in slots]

    def load_kernel(self) -> Kernel:
        """The kernel under test."""
        return artifact.load(Path(self.kernel), self.kernel_name)

    def hardware(self, name: str) -> Topology:
        """The topology that a test asks for by name; empty: that of the run."""
        return topologies.load(name) if name else self.topology

    def lacking(self, name: str) -> str:
        """Why QEMU cannot emulate that topology; empty when it can."""
        return qemu_features.lacking(self.hardware(name), ToolRoot(Path(self.tools)))

    def setup(self, kernel: Kernel, directory: Path, hardware: str, *, ssh: bool) -> VmConfig:
        """How one guest of this run is booted; hardware: see `topology`."""
        return VmConfig(
            kernel=kernel,
            files=GuestFiles(Path(self.root), Path(self.modules), Path(self.initramfs)),
            tools=ToolRoot(Path(self.tools)),
            accelerator=Accelerator(
                self.accelerator, self.accelerator_reason, self.accelerator_scale
            ),
            topology=self.hardware(hardware),
            directory=directory,
            ssh=ssh,
            start=self.start,
        )


def read(path: str) -> Plan:
    """The plan in a file."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Plan)
