# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's system, its isolation from the host and the network, and its drivers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from blockyard.ci.run import boot_env
from blockyard.images.boot import boot
from blockyard.images.machine.machine import Machine
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest
from blockyard.modules.driver import Driver
from blockyard.tests.integration.processes import descendants, listening, named

LOOPBACK = "0100007F"  # 127.0.0.1 as /proc/net/tcp writes it on a little-endian machine


@pytest.fixture
def host_server() -> Iterator[int]:
    """A port of this host that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=60):
            yield port


class TestSystem:
    def test_guest_runs_the_requested_kernel(self, ready: BootEnv, shared_guest: Machine) -> None:
        assert shared_guest.serial.check("uname -r").strip() == ready.kernel.info.release

    def test_guest_has_the_cpus_and_memory_of_its_topology(self, shared_guest: Machine) -> None:
        topology = shared_guest.setup.topology
        assert int(shared_guest.serial.check("nproc")) == topology.cpus
        pages = int(shared_guest.serial.check("awk '/MemTotal/ {print $2}' /proc/meminfo"))
        assert topology.memory_mib * 0.8 < pages / 1024 <= topology.memory_mib

    @pytest.mark.parametrize(
        "program",
        ["fio", "nvme", "blkzone", "blkdiscard", "mkfs.ext4", "mkfs.xfs", "modprobe", "bc", "gawk"],
    )
    def test_guest_has_the_programs_of_the_suites(
        self, shared_guest: Machine, program: str
    ) -> None:
        assert shared_guest.serial.run(f"command -v {program}").exit_code == 0

    def test_root_disk_is_read_only_but_files_are_writable(self, shared_guest: Machine) -> None:
        assert shared_guest.serial.run("echo x > /dev/vda").exit_code != 0
        shared_guest.serial.check("touch /etc/x && rm /etc/x")

    def test_no_folder_of_the_host_is_mounted(self, shared_guest: Machine) -> None:
        types = shared_guest.serial.check("cut -d' ' -f3 /proc/mounts").split()
        assert {"9p", "virtiofs", "nfs", "cifs"}.isdisjoint(types)
        assert "overlay" in types

    def test_kernel_log_has_no_splat(self, shared_guest: Machine) -> None:
        from blockyard.images.log.splats import find

        log = shared_guest.log  # without backtraces after timeouts of other tests
        assert find(log.unrequested(0, log.size)) == []


class TestNetwork:
    def test_guest_cannot_reach_the_host(self, shared_guest: Machine, host_server: int) -> None:
        """10.0.2.2 is the host's loopback address in QEMU's user network."""
        shared_guest.console("ssh").check("true")
        result = shared_guest.serial.run(
            f"timeout 5 bash -c 'exec 3<>/dev/tcp/10.0.2.2/{host_server}'"
        )
        assert result.exit_code != 0

    def test_guest_cannot_reach_the_internet(self, shared_guest: Machine) -> None:
        assert shared_guest.serial.check("ip route show default") == ""
        shared_guest.serial.check("ip route add default via 10.0.2.2")
        try:
            result = shared_guest.serial.run("timeout 5 bash -c 'exec 3<>/dev/tcp/9.9.9.9/53'")
        finally:
            shared_guest.serial.check("ip route del default")
        assert result.exit_code != 0

    def test_only_its_ssh_port_is_open_on_the_host(self, shared_guest: Machine) -> None:
        processes = descendants(os.getpid())
        assert named(processes, "qemu-system-x86_64")
        sockets = listening(processes)
        assert sockets == {(LOOPBACK, shared_guest.ssh_port)}

    def test_ssh_refuses_passwords_and_other_keys(self, shared_guest: Machine) -> None:
        import paramiko

        shared_guest.console("ssh").check("true")  # waits for sshd
        connection = socket.create_connection(("127.0.0.1", shared_guest.ssh_port or 0), timeout=60)
        transport = paramiko.Transport(connection)
        transport.banner_timeout = transport.auth_timeout = 60
        try:
            transport.start_client(timeout=60)
            with pytest.raises(paramiko.SSHException):
                transport.auth_password("root", "")
            with pytest.raises(paramiko.SSHException):
                transport.auth_publickey("root", paramiko.RSAKey.generate(2048))
        finally:
            transport.close()


class TestDrivers:
    @pytest.mark.parametrize("name", ["null_blk", "nvme", "rnull"])
    def test_driver_loads_and_creates_a_disk(
        self, ready: BootEnv, shared_guest: Machine, name: str
    ) -> None:
        driver = Driver(manifest.load(name), ready.kernel, shared_guest.serial)
        driver.load()
        try:
            with driver.disk() as disk:
                assert disk.size_bytes > 0
                assert disk.block_size in (512, 1024, 2048, 4096)
        finally:
            driver.unload()
        assert not driver.loaded()


class TestPrebuilt:
    def test_debian_kernel_boots_the_same_way(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Its virtio and file systems are modules, and it has no rnull."""
        ready = boot_env.ready(KernelSpec("7.2-debian"))
        rnull = manifest.load("rnull")
        assert "CONFIG_BLK_DEV_RUST_NULL" in rnull.missing_from(ready.kernel)
        with boot(ready.setup(tmp_path_factory.mktemp("guest"), ssh=True)) as guest:
            assert guest.serial.check("uname -r").strip() == ready.kernel.info.release
            assert guest.console("ssh").check("echo over ssh") == "over ssh\n"
            driver = Driver(manifest.load("null_blk"), ready.kernel, guest.serial)
            driver.load()
            with driver.disk() as disk:
                assert disk.size_bytes == 64 << 20
