# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that start from a snapshot, and QEMU's monitor, gdb server and memory dump."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.images.boot import boot
from blockyard.images.errors import GuestPanicked, ImageDamaged
from blockyard.images.hardware import topologies
from blockyard.images.log import splats
from blockyard.images.machine import qemu
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.errors import UsageError
from blockyard.modules import manifest
from blockyard.modules.driver import Driver
from blockyard.tests.lib.fio import fio

ELF = b"\x7fELF"


def boot_lines(guest: Machine) -> set[str]:
    return {line for line in guest.log.text().splitlines() if "Linux version" in line}


class TestSnapshot:
    def test_guest_from_a_snapshot_is_like_a_booted_one(
        self, ready: BootEnv, tmp_path: Path
    ) -> None:
        with boot(ready.setup(tmp_path, start="snapshot", ssh=True)) as guest:
            assert guest.serial.check("uname -r").strip() == ready.kernel.info.release
            assert guest.console("ssh").check("echo over ssh") == "over ssh\n"
            assert abs(int(guest.serial.check("date +%s")) - time.time()) < 60
            assert len(boot_lines(guest)) == 1
            driver = Driver(manifest.load("nvme"), ready.kernel, guest.serial)
            driver.load()
            with driver.disk() as disk:
                assert disk.size_bytes == 512 << 20
                assert fio(disk, rw="randwrite", bs="4k", verify="crc32c").written_bytes == 4 << 20
            assert splats.find(guest.log.text()) == []

    def test_guests_of_a_snapshot_share_neither_files_nor_random_numbers(
        self, ready: BootEnv, tmp_path: Path
    ) -> None:
        words = []
        for name in ("one", "two"):
            with boot(ready.setup(tmp_path / name, start="snapshot")) as guest:
                assert guest.serial.run("test -e /root/left").exit_code == 1
                guest.serial.check("touch /root/left")
                words.append(guest.serial.check("head -c 16 /dev/urandom | od -t x1"))
        assert words[0] != words[1]

    def test_unsupported_topology_is_a_usage_error(self, ready: BootEnv, tmp_path: Path) -> None:
        zns = topologies.load("zns")
        setup = ready.setup(tmp_path / "zns", topology=zns, start="snapshot")
        with pytest.raises(UsageError, match="cannot start from a snapshot"), boot(setup):
            pass

    def test_auto_boots_a_guest_with_an_unsupported_topology(
        self, ready: BootEnv, tmp_path: Path
    ) -> None:
        zns = topologies.load("zns")
        with boot(ready.setup(tmp_path / "zns", topology=zns, start="auto")) as guest:
            guest.serial.check("true")

    def test_log_of_a_failed_boot_has_the_cause(self, ready: BootEnv, tmp_path: Path) -> None:
        garbage = tmp_path / "garbage" / "root.erofs"
        garbage.parent.mkdir()
        garbage.write_bytes(bytes(1 << 20))
        setup = ready.setup(tmp_path / "guest", start="auto")
        broken = replace(setup, files=replace(setup.files, root=garbage))
        with pytest.raises(ImageDamaged) as caught, boot(broken):
            pass
        assert caught.value.log is not None
        assert "cannot mount /dev/vda" in caught.value.log.read_text()


def talk(path: Path, line: bytes, expected: bytes) -> bytes:
    """Send a line to a socket, and return the answer up to the expected text."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(line)
        answer = b""
        while expected not in answer and (data := connection.recv(1 << 16)):
            answer += data
        return answer


class TestQemu:
    def test_monitor_answers(self, ready: BootEnv, tmp_path: Path) -> None:
        with boot(ready.setup(tmp_path, monitor=True)) as guest:
            path = guest.directory / qemu.MONITOR_SOCKET
            assert b"VM status: running" in talk(path, b"info status\n", b"running")

    def test_gdb_server_answers(self, ready: BootEnv, tmp_path: Path) -> None:
        with boot(ready.setup(tmp_path, gdb=True)) as guest:
            path = guest.directory / qemu.GDB_SOCKET
            assert b"$T05" in talk(path, b"$?#3f", b"$T05")  # the reason for the stop: a trap

    def test_panic_leaves_a_memory_dump(self, ready: BootEnv, tmp_path: Path) -> None:
        with boot(ready.setup(tmp_path, dump=True)) as guest, pytest.raises(GuestPanicked):
            guest.serial.run("echo c > /proc/sysrq-trigger; sleep 600", 600)
        dump = tmp_path / qemu.MEMORY_DUMP
        with open(dump, "rb") as file:
            assert file.read(4) == ELF
        assert dump.stat().st_size > guest.setup.topology.memory_mib << 20
