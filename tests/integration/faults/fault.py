# SPDX-License-Identifier: GPL-2.0-or-later
"""The list of faults, and what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from blockyard.images.boot import boot
from blockyard.images.console.console import Console
from blockyard.images.hardware import topologies
from blockyard.images.log import splats
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.tests.integration.processes import descendants, named

GOES_ON = "the command ends, the guest goes on"


@dataclass(frozen=True)
class Guests:
    """Boots the guests of a test."""

    env: BootEnv
    folder: Path  # the test's

    def boot(self, name: str = "default", *, ssh: bool = False) -> AbstractContextManager[Machine]:
        """Boot a guest with the topology of that name."""
        setup = self.env.setup(self.folder / "guest", topology=topologies.load(name), ssh=ssh)
        return boot(setup)


Body = Callable[[Guests], None]


@dataclass(frozen=True)
class Fault:
    """A fault of a guest."""

    title: str
    outcome: str  # the expected one, for the table
    within_s: float  # on KVM; multiplied by the accelerator's scale
    body: Body  # causes the fault, and fails if the outcome is another


FAULTS: list[Fault] = []


def fault(title: str, outcome: str, *, within_s: float = 30) -> Callable[[Body], Body]:
    """Register a function as the body of a fault."""

    def register(body: Body) -> Body:
        FAULTS.append(Fault(title, outcome, within_s, body))
        return body

    return register


def trouble(guest: Machine, what: str, timeout_s: float = 60, **options: int) -> int:
    """Load the module that misbehaves; returns modprobe's exit code."""
    words = " ".join(f"{name}={value}" for name, value in options.items())
    return guest.serial.run(f"modprobe trouble what={what} {words}", timeout_s).exit_code


def answers(console: Console) -> None:
    """Check that the guest still runs commands."""
    assert console.run("echo well; exit 3", 10).data == b"well\n"


def kinds(guest: Machine) -> set[str]:
    """The kinds of splats in the guest's kernel log."""
    return {splat.kind for splat in splats.find(guest.log.text())}


def qemu_pid(guest: Machine) -> int:
    """The process id of the guest's QEMU."""
    (pid,) = named(descendants(guest._qemu.process.pid), "qemu-system-x86_64")
    return pid
