# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that break: the right error, in bounded time, and nothing left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.images.boot import boot
from blockyard.images.errors import BootTimeout, GuestError, GuestPanicked, ImageDamaged, QemuDied
from blockyard.images.machine.vm_config import BootEnv, VmConfig
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.integration.conftest import KERNEL, Boot
from blockyard.tests.integration.processes import descendants, left


class TestRunning:
    def test_a_panic_is_told_with_the_log(self, boot: Boot) -> None:
        with boot() as guest:
            guest.serial.check("touch /etc/written-by-a-guest")
            with pytest.raises(GuestPanicked) as caught:
                guest.serial.run("echo c > /proc/sysrq-trigger; sleep 3600", timeout_s=600)
        assert "sysrq triggered crash" in caught.value.kernel_log
        assert caught.value.log == guest.log.path
        assert "Kernel panic" in guest.log.path.read_text()

    def test_a_panic_is_told_over_ssh_too(self, boot: Boot) -> None:
        with boot(ssh=True) as guest:
            console = guest.console("ssh")
            with pytest.raises(GuestPanicked, match="panicked"):
                console.run("echo c > /proc/sysrq-trigger; sleep 3600", timeout_s=600)

    def test_a_dead_qemu_is_told(self, boot: Boot) -> None:
        with boot() as guest:
            guest.kill_qemu()
            with pytest.raises(QemuDied, match="QEMU ended") as caught:
                guest.serial.run("true")
        assert "Linux version" in guest.log.text()
        assert caught.value.kernel_log

    def test_a_power_off_is_no_silence(self, boot: Boot) -> None:
        with boot() as guest, pytest.raises(QemuDied):
            guest.serial.run("echo o > /proc/sysrq-trigger; sleep 3600", timeout_s=600)


@pytest.fixture
def setup(ready: BootEnv, tmp_path: Path) -> VmConfig:
    """A guest that would come up, to be broken by the test."""
    return ready.setup(tmp_path / "guest")


def booted(setup: VmConfig) -> None:
    with boot(setup):
        raise AssertionError("it came up")


class TestComingUp:
    def test_a_kernel_that_is_garbage(self, setup: VmConfig, tmp_path: Path) -> None:
        folder = tmp_path / "kernel"
        folder.mkdir()
        (folder / "bzImage").write_bytes(bytes(range(256)) * 4096)
        (folder / "config").write_text("CONFIG_VIRTIO_CONSOLE=y\n")
        broken = replace(
            setup,
            kernel=Kernel(folder, setup.kernel.info),
            accelerator=replace(setup.accelerator, scale=0.2),
        )
        with pytest.raises((BootTimeout, QemuDied)):
            booted(broken)

    def test_a_guest_that_does_not_come_up_in_time(self, setup: VmConfig) -> None:
        hasty = replace(setup, accelerator=replace(setup.accelerator, scale=0.003))
        with pytest.raises(BootTimeout, match="did not come up") as caught:
            booted(hasty)
        assert caught.value.log == setup.directory / "kernel.log"
        assert KERNEL in str(caught.value)

    def test_a_root_image_that_is_missing(self, setup: VmConfig, tmp_path: Path) -> None:
        missing = tmp_path / "none.erofs"
        with pytest.raises(GuestError, match="none.erofs"):
            booted(replace(setup, files=replace(setup.files, root=missing)))

    def test_a_root_image_that_is_garbage(self, setup: VmConfig, tmp_path: Path) -> None:
        garbage = tmp_path / "garbage.erofs"
        garbage.write_bytes(bytes(1 << 20))
        with pytest.raises(ImageDamaged, match="garbage.erofs: .*superblock"):
            booted(replace(setup, files=replace(setup.files, root=garbage)))
        assert "cannot mount /dev/vda (erofs)" in setup.directory.joinpath("kernel.log").read_text()

    def test_an_initramfs_without_an_init(self, setup: VmConfig, tmp_path: Path) -> None:
        empty = tmp_path / "initramfs"
        empty.write_bytes(b"")
        with pytest.raises((GuestPanicked, QemuDied)):
            booted(replace(setup, files=replace(setup.files, initramfs=empty)))


class TestNothingIsLeft:
    def test_after_a_guest(self, boot: Boot, tmp_path: Path) -> None:
        before = descendants(os.getpid())
        with boot(ssh=True) as guest:
            mine = descendants(os.getpid()) - before
            assert len(mine) >= 2
            assert guest.serial.run("test -e /etc/written-by-a-guest").exit_code == 1
            guest.console("ssh").check("true")
        assert left(mine) == set()
        assert sorted(path.name for path in (tmp_path / "guest").iterdir()) == [
            "kernel.log",
            "qemu.cmdline",
            "qemu.log",
        ]

    def test_after_an_exception(self, boot: Boot) -> None:
        before = descendants(os.getpid())
        mine: set[int] = set()
        with pytest.raises(KeyboardInterrupt), boot():
            mine = descendants(os.getpid()) - before
            raise KeyboardInterrupt
        assert mine
        assert left(mine) == set()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_after_the_process_that_owned_it_was_ended(
        self, ready: BootEnv, tmp_path: Path, number: int
    ) -> None:
        script = (
            "import sys, time; from pathlib import Path; from blockyard.ci.run import boot_env\n"
            "from blockyard.images.boot import boot\n"
            "from blockyard.kernel.spec import KernelSpec\n"
            "ready = boot_env.ready(KernelSpec(sys.argv[1]))\n"
            "with boot(ready.setup(Path(sys.argv[2]))):\n"
            "    print('up', flush=True)\n"
            "    time.sleep(3600)\n"
        )
        owner = subprocess.Popen(
            [sys.executable, "-c", script, KERNEL, str(tmp_path / "guest")],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        mine = descendants(owner.pid)
        assert len(mine) >= 2
        owner.send_signal(number)
        owner.wait(60)
        assert left(mine) == set()
