# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's arguments: a guest's devices, and how the host can reach it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from blockyard.images.hardware.topology import DEFAULT, Controller, Namespace, Topology
from blockyard.images.machine.qemu import Options, Ports, arguments, best_serial

SERIAL = Ports(serial="virtio", console=5, events=7, monitor=8)
SSH = replace(SERIAL, ssh=40022)
EVERYTHING = replace(SSH, shell=6)
TWO_CONTROLLERS = Topology(
    cpus=4,
    memory_mib=2048,
    controllers=(
        Controller("one", (Namespace(), Namespace(size_mib=64, block_size=4096))),
        Controller("two"),
    ),
)


def values(option: str, argv: list[str]) -> list[str]:
    """Return the value of each occurrence of an option."""
    return [argv[index + 1] for index, word in enumerate(argv) if word == option]


def command_line(argv: list[str]) -> list[str]:
    (line,) = values("-append", argv)
    return line.split()


class TestReach:
    def test_serial_guest_has_no_network(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL)
        assert values("-netdev", argv) == []
        assert [word for word in values("-device", argv) if "net" in word] == []
        assert "-nic" not in argv and "-net" not in argv
        assert "blockyard.ssh" not in command_line(argv)

    def test_ssh_forwards_one_loopback_port(self) -> None:
        argv = arguments(DEFAULT, "tcg", SSH)
        (netdev,) = values("-netdev", argv)
        assert netdev.split(",") == [
            "user",
            "id=net",
            "restrict=on",
            "hostfwd=tcp:127.0.0.1:40022-:22",
        ]
        assert "blockyard.ssh" in command_line(argv)

    @pytest.mark.parametrize("ports", [SERIAL, SSH, EVERYTHING])
    def test_no_other_port_listens(self, ports: Ports) -> None:
        argv = arguments(TWO_CONTROLLERS, "tcg", ports)
        listeners = re.compile(r"server|telnet|vnc|spice|gdb|0\.0\.0\.0|::")
        assert [word for word in argv if listeners.search(word)] == []
        assert [word for word in argv if "tcp:" in word] == [
            word for word in argv if "hostfwd=tcp:127.0.0.1:" in word
        ]

    @pytest.mark.parametrize("ports", [SERIAL, SSH, EVERYTHING])
    def test_default_devices_and_user_config_are_off(self, ports: Ports) -> None:
        argv = arguments(DEFAULT, "tcg", ports)
        assert "-nodefaults" in argv
        assert "-no-user-config" in argv

    def test_qemu_cannot_start_programs(self) -> None:
        (sandbox,) = values("-sandbox", arguments(DEFAULT, "tcg", SSH))
        assert {"on", "spawn=deny", "elevateprivileges=deny"} <= set(sandbox.split(","))


class TestChannels:
    def test_first_uart_carries_only_the_kernel_log(self) -> None:
        argv = arguments(DEFAULT, "tcg", EVERYTHING)
        assert values("-serial", argv) == ["chardev:log"]
        (log,) = [word for word in values("-chardev", argv) if "id=log" in word]
        assert log.startswith("file,id=log,path=/mnt/run/kernel.log,input-path=/mnt/run/kernel.in,")
        assert [word for word in command_line(argv) if word.startswith("console=")] == [
            "console=ttyS0"
        ]

    def test_known_loops_per_jiffy_are_passed(self) -> None:
        assert "lpj=" not in " ".join(command_line(arguments(DEFAULT, "tcg", SERIAL)))
        argv = arguments(DEFAULT, "tcg", SERIAL, Options(lpj=10399984))
        assert "lpj=10399984" in command_line(argv)

    def test_console_is_an_inherited_descriptor(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL)
        assert "socket,id=console,fd=5" in values("-chardev", argv)
        (port,) = [word for word in values("-device", argv) if "chardev=console" in word]
        assert port.startswith("virtserialport,")
        assert "blockyard.console=vport0p1" in command_line(argv)

    def test_shell_only_when_requested(self) -> None:
        without = arguments(DEFAULT, "tcg", SERIAL)
        assert not [word for word in without if "shell" in word]
        with_shell = arguments(DEFAULT, "tcg", EVERYTHING)
        assert "socket,id=shell,fd=6" in values("-chardev", with_shell)
        assert "blockyard.shell=hvc0" in command_line(with_shell)

    def test_panic_ends_qemu(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL)
        assert "-no-reboot" in argv
        assert "panic=-1" in command_line(argv)


class TestMachine:
    def test_kvm_uses_the_host_cpu(self) -> None:
        argv = arguments(DEFAULT, "kvm", SERIAL)
        assert values("-accel", argv) == ["kvm"]
        assert values("-cpu", argv) == ["host"]

    def test_tcg_uses_the_max_cpu(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL)
        assert values("-accel", argv) == ["tcg,thread=multi"]
        (cpu,) = values("-cpu", argv)
        assert cpu.split(",")[0] == "max"

    def test_cpus_and_memory_follow_the_topology(self) -> None:
        argv = arguments(TWO_CONTROLLERS, "tcg", SERIAL)
        assert (values("-smp", argv), values("-m", argv)) == (["4"], ["2048"])

    def test_shared_images_are_read_only(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL)
        for name in ("root", "modules"):
            (disk,) = [word for word in values("-blockdev", argv) if f"node-name={name}," in word]
            assert disk.split(",")[-1] == "read-only=on"
        assert {"blockyard.root=vda", "blockyard.modules=vdb"} <= set(command_line(argv))

    def test_root_is_the_first_disk(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL)
        disks = [word for word in values("-device", argv) if word.startswith("virtio-blk")]
        assert ["drive=root" in disk for disk in disks] == [True, False]


class TestSerial:
    @pytest.mark.parametrize(
        ("config", "best"),
        [
            ({"VIRTIO_CONSOLE": "y"}, "virtio"),
            ({"VIRTIO_CONSOLE": "m", "SERIAL_8250_RUNTIME_UARTS": "4"}, "virtio"),
            ({"VIRTIO_CONSOLE": "n", "SERIAL_8250_RUNTIME_UARTS": "4"}, "uart"),
            ({"SERIAL_8250_RUNTIME_UARTS": "1"}, "shared"),
        ],
    )
    def test_best_serial_port_of_a_kernel(self, config: dict[str, str], best: str) -> None:
        assert best_serial(config) == best

    @pytest.mark.parametrize(
        ("serial", "device", "uarts"),
        [
            ("virtio", "vport0p1", ["chardev:log"]),
            ("uart", "ttyS1", ["chardev:log", "chardev:console"]),
            ("shared", "ttyS0", ["chardev:console"]),
        ],
    )
    def test_console_device_of_each_serial_port(
        self, serial: str, device: str, uarts: list[str]
    ) -> None:
        argv = arguments(DEFAULT, "tcg", replace(SERIAL, serial=serial))
        assert f"blockyard.console={device}" in command_line(argv)
        assert values("-serial", argv) == uarts


class TestOptions:
    def test_monitor_and_gdb_are_sockets_in_the_run_folder(self) -> None:
        everything = Options(monitor=True, gdb=True, dump=True)
        argv = arguments(DEFAULT, "tcg", SERIAL, everything)
        sockets = [word for word in values("-chardev", argv) if "server" in word]
        assert [word.split(",")[2] for word in sockets] == [
            "path=/mnt/run/monitor.sock",
            "path=/mnt/run/gdb.sock",
        ]
        assert values("-action", argv) == ["shutdown=pause"]

    def test_snapshot_memory_is_read_only(self) -> None:
        argv = arguments(DEFAULT, "tcg", SERIAL, Options(resumed=True))
        (memory,) = values("-object", argv)
        assert "mem-path=/mnt/snapshot/memory,share=off,readonly=on" in memory
        assert values("-incoming", argv) == ["defer"]
