# SPDX-License-Identifier: GPL-2.0-or-later
"""What a run is to do, as one value that is written to a file for pytest and its workers."""

from __future__ import annotations

import itertools
from pathlib import Path

import msgspec

from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import DEFAULT, Topology
from blockyard.images.machine.vm_config import BootEnv, EnvKeys, Start
from blockyard.modules import manifest
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness import budget
from blockyard.tests.harness.upstream import Upstream


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to boot guests and test drivers in them.

    What guests boot from are keys: whoever runs the plan finds the entries in the cache there.
    """

    drivers: tuple[str, ...]
    consoles: tuple[str, ...]
    folders: tuple[str, ...] = ()  # of drivers outside the kernel tree
    directory: str = ""  # of the run: guests' folders are made below it
    env: EnvKeys | None = None  # what guests boot from; None: tests are listed only
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

    def hardware(self, name: str) -> Topology:
        """The topology that a test asks for by name; empty: that of the run."""
        return topologies.load(name) if name else self.topology

    def resolved(self) -> BootEnv:
        """The environment of the plan's guests, in this machine's cache."""
        assert self.env is not None
        return self.env.resolved()


def read(path: str) -> Plan:
    """The plan in a file."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Plan)
