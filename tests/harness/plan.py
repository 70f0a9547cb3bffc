# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run does, as one value that is written to a file for pytest and its workers.

It has no path of this machine. Kernels and images are keys of the cache, drivers outside the kernel
tree are their manifests, and guests' folders are made where pytest is told (plugin.DIRECTORY).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import msgspec

from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import DEFAULT, Topology
from blockyard.images.machine.vm_config import BootEnv, EnvKeys, Start
from blockyard.modules import manifest
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness import budget
from blockyard.tests.harness.upstream import Upstream


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which drivers are tested, over which consoles, on what hardware, and for how long."""

    drivers: tuple[str, ...]
    consoles: tuple[str, ...]
    topology: Topology = DEFAULT  # of guests whose tests request none
    start: Start = "boot"
    budget: budget.Name = "default"
    smoke: bool = False  # of Linux's suites, only the smoke tests
    upstream: Upstream | None = None  # tests of blktests, in place of suites


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a worker needs to boot guests and to test drivers in them."""

    scope: Scope
    manifests: tuple[Manifest, ...] = ()  # of drivers outside the kernel tree, see `portable`
    env: EnvKeys | None = None  # what guests boot from; None: tests are only listed
    own: bool = False  # whether the tests are a driver's own, in an enclosure

    def manifest(self, name: str) -> Manifest:
        """The manifest of a driver; raises UsageError for an unknown name."""
        found = (driver for driver in self.manifests if driver.name == name)
        return next(found, None) or manifest.load(name)

    def drivers_of(self, folder: Path) -> tuple[str, ...]:
        """The drivers that test files in a folder are for.

        Files beside the manifest of a driver are for this driver alone.
        """
        if owner := self.owner(folder):
            return tuple(name for name in self.scope.drivers if name == owner)
        return self.scope.drivers

    def owner(self, folder: Path) -> str:
        """The driver outside the kernel tree whose manifest is in a folder; empty for none."""
        if not (folder / manifest.FILE).is_file():
            return ""
        return next((driver.name for driver in self.manifests if driver.folder == folder.name), "")

    def slot_names(self) -> list[str]:
        """The names of all slots that tests may have; see guests.Slot."""
        hardware = ("", *(f"-{name}" for name in topologies.names()))
        slots = itertools.product(self.scope.drivers, self.scope.consoles, hardware)
        return [f"{driver}-{console}{name}" for driver, console, name in slots]

    def hardware(self, name: str) -> Topology:
        """The topology that a test requests by name; for an empty name, that of the run."""
        return topologies.load(name) if name else self.scope.topology

    def resolved(self) -> BootEnv:
        """The environment of the plan's guests, in this machine's cache."""
        assert self.env is not None
        return self.env.resolved()


def portable(drivers: Sequence[Manifest]) -> tuple[Manifest, ...]:
    """The manifests with the name of their folder in place of its path."""
    return tuple(
        msgspec.structs.replace(driver, folder=Path(driver.folder).name) for driver in drivers
    )


def read(path: Path) -> Plan:
    """The plan in a file."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def write(plan: Plan, path: Path) -> None:
    """Writes a plan for `read`."""
    path.write_bytes(msgspec.json.encode(plan))
