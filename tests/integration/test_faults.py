# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that break raise the right error in bounded time, and leave nothing behind."""

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
    def test_panic_is_raised_with_the_kernel_log(self, boot: Boot) -> None:
        with boot() as guest:
            guest.serial.check("touch /etc/written-by-a-guest")
            with pytest.raises(GuestPanicked) as caught:
                guest.serial.run("echo c > /proc/sysrq-trigger; sleep 3600", timeout_s=600)
        assert "sysrq triggered crash" in caught.value.kernel_log
        assert caught.value.log == guest.log.path
        assert "Kernel panic" in guest.log.path.read_text()

    def test_panic_is_raised_over_ssh(self, boot: Boot) -> None:
        with boot(ssh=True) as guest:
            console = guest.console("ssh")
            with pytest.raises(GuestPanicked, match="panicked"):
                console.run("echo c > /proc/sysrq-trigger; sleep 3600", timeout_s=600)

    def test_dead_qemu_is_raised_with_the_kernel_log(self, boot: Boot) -> None:
        with boot() as guest:
            guest.kill_qemu()
            with pytest.raises(QemuDied, match="QEMU ended") as caught:
                guest.serial.run("true")
        assert "Linux version" in guest.log.text()
        assert caught.value.kernel_log

    def test_power_off_is_raised_at_once(self, boot: Boot) -> None:
        with boot() as guest, pytest.raises(QemuDied):
            guest.serial.run("echo o > /proc/sysrq-trigger; sleep 3600", timeout_s=600)


@pytest.fixture
def setup(ready: BootEnv, tmp_path: Path) -> VmConfig:
    """A guest that would boot; tests break it."""
    return ready.setup(tmp_path / "guest")


def booted(setup: VmConfig) -> None:
    with boot(setup):
        raise AssertionError("the guest booted")


class TestBoot:
    def test_garbage_kernel_is_an_error(self, setup: VmConfig, tmp_path: Path) -> None:
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

    def test_slow_boot_is_a_timeout(self, setup: VmConfig) -> None:
        hasty = replace(setup, accelerator=replace(setup.accelerator, scale=0.003))
        with pytest.raises(BootTimeout, match="did not come up") as caught:
            booted(hasty)
        assert caught.value.log == setup.directory / "kernel.log"
        assert KERNEL in str(caught.value)

    def test_missing_root_image_is_named(self, setup: VmConfig, tmp_path: Path) -> None:
        missing = tmp_path / "none.erofs"
        with pytest.raises(GuestError, match="none.erofs"):
            booted(replace(setup, files=replace(setup.files, root=missing)))

    def test_garbage_root_image_is_named(self, setup: VmConfig, tmp_path: Path) -> None:
        garbage = tmp_path / "garbage.erofs"
        garbage.write_bytes(bytes(1 << 20))
        with pytest.raises(ImageDamaged, match="garbage.erofs: .*superblock"):
            booted(replace(setup, files=replace(setup.files, root=garbage)))
        assert "cannot mount /dev/vda (erofs)" in setup.directory.joinpath("kernel.log").read_text()

    def test_empty_initramfs_is_an_error(self, setup: VmConfig, tmp_path: Path) -> None:
        empty = tmp_path / "initramfs"
        empty.write_bytes(b"")
        with pytest.raises((GuestPanicked, QemuDied)):
            booted(replace(setup, files=replace(setup.files, initramfs=empty)))


class TestCleanup:
    def test_guest_leaves_only_its_logs(self, boot: Boot, tmp_path: Path) -> None:
        before = descendants(os.getpid())
        with boot(ssh=True) as guest:
            processes = descendants(os.getpid()) - before
            assert len(processes) >= 2
            assert guest.serial.run("test -e /etc/written-by-a-guest").exit_code == 1
            guest.console("ssh").check("true")
        assert left(processes) == set()
        assert sorted(path.name for path in (tmp_path / "guest").iterdir()) == [
            "kernel.log",
            "qemu.cmdline",
            "qemu.log",
        ]

    def test_exception_leaves_no_process(self, boot: Boot) -> None:
        before = descendants(os.getpid())
        processes: set[int] = set()
        with pytest.raises(KeyboardInterrupt), boot():
            processes = descendants(os.getpid()) - before
            raise KeyboardInterrupt
        assert processes
        assert left(processes) == set()

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_killed_owner_leaves_no_process(
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
        processes = descendants(owner.pid)
        assert len(processes) >= 2
        owner.send_signal(number)
        owner.wait(60)
        assert left(processes) == set()
