# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: saved guests that other guests start from, instead of booting.

The saved guest has no disks under test but a free PCIe port for each controller, because QEMU can
neither save an NVMe controller nor load a snapshot when it has one. The controllers are plugged in
when the guest runs. The memory is a file that QEMU maps, shared in the guest that is saved, private
in guests that start from it, so that they read only the pages that they use. A snapshot is made
once per kernel and number of ports, and kept in the cache.
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
RECIPE = 1  # part of the key; increase it when snapshots are made in another way
PORTS = Ports(serial="virtio", console=0, events=0, monitor=0)  # for the key
CPUINFO = Path("/proc/cpuinfo")
RESUME_S = 10.0  # QEMU reads a snapshot within this, at scale 1
SAVE_S = 120.0  # QEMU writes its state within this

Booted = Callable[["VmConfig"], AbstractContextManager["Machine"]]


class Times(msgspec.Struct, frozen=True):
    """Durations of starts, in seconds from QEMU's start to the console's first answer."""

    boot_s: float
    effort_s: float = 0.0  # of the boot, see images.boot
    snapshot_s: float = 0.0  # of the fastest start from the snapshot; 0: none yet


@dataclass(frozen=True)
class Snapshot:
    """A saved guest in the cache."""

    path: Path  # a folder with MEMORY (a sparse file) and STATE of images.machine.qemu

    @property
    def kernel_log(self) -> Path:
        """The path of the kernel log of the boot."""
        return self.path / KERNEL_LOG

    @property
    def times(self) -> Times:
        """The durations so far; raises an error of BROKEN_FILE when the file is damaged."""
        return msgspec.json.decode((self.path / "times.json").read_bytes(), type=Times)

    def record(self, seconds: float) -> None:
        """Records the duration of a start. Only the shortest is kept: the host may be busy."""
        times = self.times
        if times.snapshot_s and seconds >= times.snapshot_s:
            return
        times = msgspec.structs.replace(times, snapshot_s=round(seconds, 3))
        store.keep(self.path / "times.json", msgspec.json.encode(times))

    @property
    def is_faster(self) -> bool:
        """Whether a start from it is faster than a boot; True before the first start from it."""
        try:
            times = self.times
        except BROKEN_FILE:  # the start fails and drops the snapshot
            return True
        return times.snapshot_s < times.boot_s

    def drop(self) -> None:
        """Removes it from the cache. Running guests have its files open.

        A new snapshot is made after another guest has booted.
        """
        (store.directory("booted") / self.path.name).unlink(missing_ok=True)
        aside = self.path.with_name(f"{store.BROKEN}{self.path.name}")
        store.remove(aside)
        with contextlib.suppress(FileNotFoundError):  # another run has dropped it
            self.path.rename(aside)
            store.remove(aside)


def obstacle(setup: VmConfig) -> str:
    """Why such a guest cannot start from a snapshot; empty when it can."""
    if setup.shell:
        return "the port of a shell cannot be saved"
    if setup.dump:
        return "a snapshot has no device for memory dumps"
    if setup.serial_port != "virtio":
        return f"a serial console on {setup.serial_port} cannot be saved"
    topology = setup.topology
    if topology.controllers and setup.kernel.config.get("PROVE_LOCKING") == "y":
        # pciehp_configure_device() takes reset_lock below pci_rescan_remove_lock, its other
        # callers above: seen with 7.3.4, in every guest whose controllers are plugged in
        return "it would plug in its controllers, and lockdep reports a bug in PCIe hot-plug"
    if topology.disks or topology.subsystems or (topology.controllers and topology.hotplug_ports):
        return f"topology {topology.name} has more than either NVMe controllers or free ports"
    try:
        for port, controller in enumerate(topology.controllers):
            devices.hotplug(controller, port)
    except UsageError as error:
        return error.what
    return ""


def saved_topology(topology: Topology) -> Topology:
    """The topology of the guest that is saved: a free port in place of each controller."""
    ports = topology.hotplug_ports + len(topology.controllers)
    return msgspec.structs.replace(topology, controllers=(), subsystems=(), hotplug_ports=ports)


def note_boot(setup: VmConfig) -> None:
    """Records that such a guest boots."""
    store.keep(store.path_of("booted") / _key(setup), b"")


def is_due(setup: VmConfig) -> bool:
    """Whether a snapshot exists or can be made, because such a guest has booted before."""
    key = _key(setup)
    return store.peek("snapshots", key) is not None or (store.path_of("booted") / key).exists()


def _key(setup: VmConfig) -> str:
    hardware = saved_topology(setup.topology)
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
    """The host's CPU: a saved guest depends on its clock rate, and under KVM on its features.

    Lines that change all the time, such as the frequency, are left out.
    """
    names = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags")
    first, _, _ = cpuinfo.partition("\n\n")
    return [line for line in first.splitlines() if line.partition(":")[0].strip() in names]


def snapshot(setup: VmConfig, boot: Booted) -> Snapshot:
    """The snapshot for guests like this one, made if it is not cached; boot: images.boot.boot."""
    hardware = saved_topology(setup.topology)

    def make(path: Path) -> None:
        plain = replace(
            setup, directory=path, topology=hardware, ssh=False, saved=True, start="boot"
        )
        with step("saving a guest to start others from"), boot(plain) as guest:
            guest.serial.run("true")  # afterwards the next shell waits for its script
            _save(guest)
            times = Times(boot_s=round(guest.boot_s, 3), effort_s=round(guest.effort_s, 3))
        (path / "times.json").write_bytes(msgspec.json.encode(times))

    return Snapshot(store.get("snapshots", _key(setup), "the snapshot", make))


class _Migration(msgspec.Struct):
    """QEMU's answer to query-migrate."""

    status: str = ""


def _save(guest: Machine) -> None:
    # saved while it runs: guests start in the state in which it was saved
    guest.qmp.execute(*IGNORE_MEMORY)
    guest.qmp.command("migrate", uri=f"file:{RUN}/{STATE}")
    deadline = time.monotonic() + SAVE_S
    while (status := guest.qmp.query("query-migrate", _Migration).status) != "completed":
        if status in ("failed", "cancelled") or time.monotonic() > deadline:
            raise Failure(f"QEMU could not save the guest: {status}")
        time.sleep(0.02)


def _wait_until_it_runs(guest: Machine) -> None:
    """Waits for QEMU to load the snapshot; a device that is plugged in earlier is lost."""
    deadline = guest.time() + RESUME_S * guest.scale
    while guest.events.last("RESUME") is None:
        if guest.time() > deadline:
            raise BootTimeout("QEMU did not start the guest from its snapshot", log=guest.log.path)
        guest.watch()
        time.sleep(0.005)


def wake(guest: Machine) -> None:
    """Completes the start from a snapshot: plugs in controllers, sets the time, adds entropy.

    Without the entropy all guests of a snapshot would have the same random numbers.
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
