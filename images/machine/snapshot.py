# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has booted, saved, so that others start from there.

What is saved is a guest without the disks under test, with a free PCIe port for each controller:
QEMU cannot save an NVMe controller, nor start from what was saved when it has one. They are
plugged in when the guest runs. The memory is a file that QEMU maps: shared when it is saved,
private to each guest that starts from it, which so reads only what it uses. A snapshot is made once
per kernel and number of ports, and kept in the cache.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.images.errors import BootTimeout
from blockyard.images.hardware import devices
from blockyard.images.hardware.topology import Topology
from blockyard.images.machine import hotplug
from blockyard.images.machine.qemu import (
    IGNORE_MEMORY,
    KERNEL_LOG,
    PACKAGE,
    RUN,
    STATE,
    Options,
    Ports,
    arguments,
)
from blockyard.kernel.host import store
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import step

if TYPE_CHECKING:
    from blockyard.images.machine.machine import Machine
    from blockyard.images.machine.vm_config import VmConfig

NVME_CLASS = "0x010802"  # NVM Express I/O controller (PCI Code and ID Assignment)
RECIPE = 1  # changes with what is saved
PORTS = Ports(serial="virtio", console=0, events=0, monitor=0)  # where they lead is not saved
CPUINFO = Path("/proc/cpuinfo")
RESUME_S = 10.0  # QEMU has read it within this, at scale 1
SAVE_S = 120.0  # QEMU has written its state within this

Booted = Callable[["VmConfig"], AbstractContextManager["Machine"]]


class Times(msgspec.Struct, frozen=True):
    """What a start took, in seconds from QEMU's start to the console's first answer."""

    boot_s: float
    effort_s: float = 0.0  # see images.boot
    snapshot_s: float = 0.0  # 0: nobody has started from it yet


@dataclass(frozen=True)
class Snapshot:
    """A saved guest in the cache."""

    path: Path  # with images.machine.qemu's MEMORY, a sparse file, and STATE

    @property
    def kernel_log(self) -> Path:
        """What the kernel said while it booted."""
        return self.path / KERNEL_LOG

    @property
    def times(self) -> Times:
        """What starts took."""
        return msgspec.json.decode((self.path / "times.json").read_bytes(), type=Times)

    def record(self, seconds: float) -> None:
        """What a start from it took; the shortest counts, as others had other work beside them."""
        times = self.times
        if times.snapshot_s and seconds >= times.snapshot_s:
            return
        times = msgspec.structs.replace(times, snapshot_s=round(seconds, 3))
        store.keep(self.path / "times.json", msgspec.json.encode(times))

    @property
    def pays(self) -> bool:
        """Whether a start from it is faster than a boot, as far as that is known."""
        try:
            times = self.times
        except BROKEN_FILE:  # a start from it tells, and drops it
            return True
        return times.snapshot_s < times.boot_s

    def drop(self) -> None:
        """Removes it from the cache; guests that started from it have it open.

        The next one is made when a guest has booted once more.
        """
        (store.directory("booted") / self.path.name).unlink(missing_ok=True)
        aside = self.path.with_name(f"{store.BROKEN}{self.path.name}")
        store.remove(aside)
        with contextlib.suppress(FileNotFoundError):  # another run was quicker
            self.path.rename(aside)
            store.remove(aside)


def obstacle(setup: VmConfig) -> str:
    """Why such a guest cannot start from a snapshot; empty when it can."""
    if setup.shell:
        return "a shell's port cannot be saved"
    if setup.dump:
        return "what a memory dump needs is not saved"
    if setup.serial_port != "virtio":
        return f"a serial console on {setup.serial_port} cannot be saved"
    topology = setup.topology
    if topology.controllers and setup.kernel.config.get("PROVE_LOCKING") == "y":
        # pciehp_configure_device() takes reset_lock below pci_rescan_remove_lock, its other
        # callers above: seen with 7.3.4, in every guest whose controllers are plugged in
        return "lockdep complains of PCIe hot-plug, which a start from a snapshot is"
    if topology.disks or topology.subsystems or (topology.controllers and topology.hotplug_ports):
        return f"topology {topology.name} is more than NVMe controllers, or than free ports"
    try:
        for port, controller in enumerate(topology.controllers):
            devices.hotplug(controller, port)
    except UsageError as error:
        return error.what
    return ""


def bare(topology: Topology) -> Topology:
    """The hardware that is saved for guests of a topology."""
    ports = topology.hotplug_ports + len(topology.controllers)
    return msgspec.structs.replace(topology, controllers=(), subsystems=(), hotplug_ports=ports)


def note_boot(setup: VmConfig) -> None:
    """Keeps in mind that such a guest comes up."""
    store.keep(store.place("booted") / _key(setup), b"")


def is_due(setup: VmConfig) -> bool:
    """Whether there is a snapshot, or one can be made: a guest that does not boot has none."""
    key = _key(setup)
    return store.peek("snapshots", key) is not None or (store.place("booted") / key).exists()


def _key(setup: VmConfig) -> str:
    hardware = bare(setup.topology)
    return store.digest(
        "snapshot",
        RECIPE,
        setup.kernel.info.key,
        [path.parent.name for path in (setup.files.root, setup.files.modules)],
        setup.files.initramfs.parent.name,
        setup.tools.versions[PACKAGE],
        setup.accelerator.name,
        _processor(CPUINFO.read_text()),
        arguments(hardware, setup.accelerator.name, PORTS, Options(saved=True)),
    )


def _processor(cpuinfo: str) -> list[str]:
    """The host's: a saved guest knows its clock's rate, and under KVM its features.

    Without what changes from moment to moment, such as its frequency.
    """
    names = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags")
    first, _, _ = cpuinfo.partition("\n\n")
    return [line for line in first.splitlines() if line.partition(":")[0].strip() in names]


def snapshot(setup: VmConfig, boot: Booted) -> Snapshot:
    """The snapshot for guests like this one, made if need be; boot: images.boot.boot."""
    hardware = bare(setup.topology)

    def make(path: Path) -> None:
        plain = replace(
            setup, directory=path, topology=hardware, ssh=False, saved=True, start="boot"
        )
        with step("saving a guest to start others from"), boot(plain) as guest:
            guest.serial.run("true")  # the first shell is waiting for its script again
            _save(guest)
            times = Times(boot_s=round(guest.boot_s, 3), effort_s=round(guest.effort_s, 3))
        (path / "times.json").write_bytes(msgspec.json.encode(times))

    return Snapshot(store.get("snapshots", _key(setup), "the snapshot", make))


def _save(guest: Machine) -> None:
    # it is not paused: the state that it is saved in is the one that others start in
    guest.qmp.execute(*IGNORE_MEMORY)
    guest.qmp.command("migrate", uri=f"file:{RUN}/{STATE}")
    deadline = time.monotonic() + SAVE_S
    while (status := guest.qmp.command("query-migrate").get("status")) != "completed":
        if status in ("failed", "cancelled") or time.monotonic() > deadline:
            raise Failure(f"QEMU could not save the guest: {status}")
        time.sleep(0.02)


def _wait_until_it_runs(guest: Machine) -> None:
    """What is plugged in while QEMU still reads the saved state is lost."""
    deadline = guest.time() + RESUME_S * guest.scale
    while guest.events.last("RESUME") is None:
        if guest.time() > deadline:
            raise BootTimeout("QEMU did not start the guest from its snapshot", log=guest.log.path)
        guest.watch()
        time.sleep(0.005)


def wake(guest: Machine) -> None:
    """Gives a guest that starts from a snapshot what makes it one of its own.

    Its controllers, the time, and randomness: its siblings have the same memory.
    """
    _wait_until_it_runs(guest)
    controllers = guest.setup.topology.controllers
    for port, controller in enumerate(controllers):
        hotplug.attach(guest, controller, port)
    guest.serial.check(f"""
        date --set=@{time.time():.3f} > /dev/null
        printf {os.urandom(32).hex()} > /dev/urandom
        found() {{ grep -l {NVME_CLASS} /sys/bus/pci/devices/*/class | wc -l; }}
        until [ $(found) -ge {len(controllers)} ]; do sleep 0.01; done""")
