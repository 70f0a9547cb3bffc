# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of the guest's console port, network and disks."""

from __future__ import annotations

import threading

import pytest

from blockyard.images.errors import ConsoleLost
from blockyard.images.hardware.topology import Controller
from blockyard.images.machine import hotplug
from blockyard.tests.integration.faults.fault import GOES_ON, Guests, answers, fault, kinds


@fault("the guest closes the console's port", "ConsoleLost: its kernel is alive")
def port_closed(guests: Guests) -> None:
    script = "cd /sys/bus/virtio/drivers/virtio_console; echo virtio* > unbind; sleep 600"
    with guests.boot() as guest, pytest.raises(ConsoleLost, match="kernel is alive"):
        guest.serial.run(script, 6000)


@fault("sshd is killed", "ConsoleLost over ssh; serial goes on")
def sshd_killed(guests: Guests) -> None:
    with guests.boot(ssh=True) as guest:
        console = guest.console("ssh")
        answers(console)
        with pytest.raises(ConsoleLost, match="kernel is alive"):
            console.run("pkill -KILL sshd; sleep 600", 6000)
        answers(guest.serial)


@fault("the network device goes down", "ConsoleLost over ssh; serial goes on")
def network_down(guests: Guests) -> None:
    with guests.boot(ssh=True) as guest:
        console = guest.console("ssh")
        with pytest.raises(ConsoleLost, match="kernel is alive"):
            console.run("ip link set eth0 down; sleep 600", 6000)
        answers(guest.serial)


IO = "fio --name=io --filename=/dev/nvme0n1 --rw=randread --direct=1 --time_based --runtime=600"


@fault("the NVMe controller is removed while I/O runs", f"{GOES_ON}: its I/O fails")
def controller_removed(guests: Guests) -> None:
    remove = "sleep 2; echo 1 > /sys/class/nvme/nvme0/device/remove"
    with guests.boot() as guest:
        guest.serial.check("modprobe nvme; wait_until 10 [ -b /dev/nvme0n1 ]")
        result = guest.serial.run(f"({remove}) & {IO}", 600)
        assert result.exit_code not in (0, 137)
        assert guest.serial.run("test -e /dev/nvme0n1").exit_code == 1
        assert kinds(guest) == set()


@fault("the NVMe controller is unplugged while I/O runs", f"{GOES_ON}: its I/O fails")
def controller_unplugged(guests: Guests) -> None:
    with guests.boot("hotplug") as guest:
        guest.serial.check("modprobe nvme")
        hotplug.plug(guest, Controller("plugged"), 0)
        guest.serial.wait_until("[ -b /dev/nvme0n1 ]")
        threading.Timer(2, guest.qmp.command, ["device_del"], {"id": "port0-nvme"}).start()
        assert guest.serial.run(IO, 600).exit_code not in (0, 137)
        answers(guest.serial)
        assert kinds(guest) == set()
