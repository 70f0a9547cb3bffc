# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of QEMU, and of the files that it reads."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace

import pytest

from blockyard.images.boot import boot
from blockyard.images.errors import GuestHung, GuestShutdown, ImageDamaged, QemuDied
from blockyard.images.hardware.topology import Controller, Topology
from blockyard.images.machine import qemu, snapshot
from blockyard.tests.integration.faults.fault import GOES_ON, Guests, answers, fault, qemu_pid


@fault("QEMU is killed", "QemuDied")
def qemu_killed(guests: Guests) -> None:
    with guests.boot() as guest:
        os.kill(qemu_pid(guest), signal.SIGKILL)
        with pytest.raises(QemuDied):
            guest.serial.run("sleep 600", 600)


@fault("QEMU is stopped for 15 seconds", GOES_ON)
def qemu_stopped_for_a_while(guests: Guests) -> None:
    with guests.boot() as guest:
        pid = qemu_pid(guest)
        threading.Timer(1, os.kill, [pid, signal.SIGSTOP]).start()
        threading.Timer(16, os.kill, [pid, signal.SIGCONT]).start()
        assert guest.serial.run("sleep 18; exit 3", 20, blocked_s=10).exit_code == 3
        answers(guest.serial)


@fault("QEMU is stopped (SIGSTOP)", "GuestHung: QEMU itself hangs", within_s=60)
def qemu_stopped(guests: Guests) -> None:
    with guests.boot() as guest:
        threading.Timer(1, os.kill, [qemu_pid(guest), signal.SIGSTOP]).start()
        with pytest.raises(GuestHung, match="QEMU itself hangs"):
            guest.serial.run("sleep 6000", 6000)


@fault("QEMU pauses the guest", "GuestHung: QEMU has paused the guest")
def qemu_paused(guests: Guests) -> None:
    with guests.boot() as guest:
        guest.qmp.command("stop")
        with pytest.raises(GuestHung, match="paused"):
            guest.serial.run("sleep 6000", 6000)


@fault("the guest reboots", "GuestShutdown")
def reboot(guests: Guests) -> None:
    with guests.boot() as guest, pytest.raises(GuestShutdown, match="rebooted"):
        guest.serial.run("echo b > /proc/sysrq-trigger; sleep 600", 600)


@fault("the guest powers off", "GuestShutdown")
def power_off(guests: Guests) -> None:
    with guests.boot() as guest, pytest.raises(GuestShutdown, match="powered off"):
        guest.serial.run("echo o > /proc/sysrq-trigger; sleep 600", 600)


@fault("QEMU refuses its arguments", "QemuDied: QEMU's reason, in one line")
def qemu_refuses(guests: Guests) -> None:
    both = Controller("a", sriov_max_vfs=2), Controller("b")
    odd = Topology(controllers=both, name="odd")
    setup = guests.env.setup(guests.folder / "guest", topology=odd)
    with pytest.raises(QemuDied) as caught, boot(setup):
        raise AssertionError("the guest booted")
    assert caught.value.what.startswith("QEMU cannot start this guest: -device")
    assert len(caught.value.what.splitlines()) == 1
    assert caught.value.hint == "topology odd"


@fault("the guest root's image is cut off", "ImageDamaged: the file, and to remove it")
def root_cut(guests: Guests) -> None:
    setup = guests.env.setup(guests.folder / "guest")
    root = guests.folder / "cut" / "root.erofs"
    root.parent.mkdir()
    with open(setup.files.root, "rb") as whole:
        root.write_bytes(whole.read(50 << 20))
    cut = replace(setup, files=replace(setup.files, root=root))
    with (
        pytest.raises(ImageDamaged, match="cannot read .*cut/root.erofs: ") as caught,
        boot(cut) as guest,
    ):
        guest.serial.run("fio --version; exit 127", 60)
    assert str(root.parent) in caught.value.hint


@fault("the saved guest is damaged", "it is dropped, with one line, and the guest boots")
def snapshot_damaged(guests: Guests) -> None:
    setup = guests.env.setup(guests.folder / "guest", start="snapshot")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "RECIPE", f"of this test {os.getpid()}")  # not the user's snapshot
        for name in (qemu.STATE, qemu.MEMORY, "times.json"):
            saved = snapshot.snapshot(setup, boot)
            os.truncate(saved.path / name, 0 if name == "times.json" else 1000)
            with boot(setup) as guest:
                answers(guest.serial)
                assert "Linux version" in guest.log.text()
            assert not saved.path.exists()
