# SPDX-License-Identifier: GPL-2.0-or-later
"""qemu.cmdline: the command that started a guest, and a script to start it by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from blockyard.images.files import GuestFiles
from blockyard.images.hardware import topologies, topology
from blockyard.images.machine import by_hand, qemu
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.tests.unit import samples

OPTIONS = qemu.Options(lpj=8400000)


@pytest.fixture
def setup(tmp_path: Path) -> VmConfig:
    files = GuestFiles(tmp_path / "root", tmp_path / "modules", tmp_path / "initramfs")
    return VmConfig(
        samples.kernel(tmp_path / "kernel", "CONFIG_VIRTIO_CONSOLE=y\n"),
        files,
        samples.tools(tmp_path / "tools"),
        Accelerator("tcg", "requested", 5.0),
        topology.DEFAULT,
        tmp_path / "guest",
    )


def script(setup: VmConfig, options: qemu.Options = OPTIONS) -> tuple[str, str]:
    """Comments of the script and the lines to paste, for a guest with inherited ports."""
    ports = qemu.Ports(
        setup.serial_port, console=15, monitor=19, events=17, ssh=40022 if setup.ssh else None
    )
    sandbox = Sandbox(setup.tools.root, network=setup.ssh, read_only={"initrd": Path("joined")})
    argv = sandbox.argv(qemu.arguments(setup.topology, "tcg", ports, options))
    lines = by_hand.script(setup, sandbox, argv, options).splitlines()
    comments = [line for line in lines if line.startswith("#")]
    assert lines[: len(comments)] == comments
    return "\n".join(comments), "\n".join(lines[len(comments) :])


@pytest.mark.parametrize("name", sorted(topologies.names()))
@pytest.mark.parametrize("serial", sorted(qemu.SERIAL))
def test_script_inherits_no_file_descriptor(setup: VmConfig, name: str, serial: str) -> None:
    _, pasted = script(replace(setup, topology=topologies.load(name), serial=serial))
    assert re.findall(r"fd=|fdset", pasted) == []
    used = set(re.findall(r"/mnt/run/([\w-]+\.raw)", pasted))
    assert set(re.findall(r'truncate -s \d+ "\$run"/(\S+)', pasted)) == used


def test_comments_have_the_original_command(setup: VmConfig) -> None:
    comments, pasted = script(setup)
    assert "# $ " in comments
    assert "socket,id=console,fd=15" in comments
    assert "socket,id=console,path=/mnt/run/console.sock,server=on,wait=off" in pasted


def test_kernel_command_line_is_kept(setup: VmConfig) -> None:
    comments, pasted = script(setup)
    (line,) = re.findall(r"^# kernel command line: (.*)$", comments, re.MULTILINE)
    assert "lpj=8400000" in line
    assert f"-append '{line}'" in pasted


def test_script_has_no_network(setup: VmConfig) -> None:
    """The guest's SSH keys are gone, and its port may be in use."""
    comments, pasted = script(replace(setup, ssh=True))
    assert "hostfwd" in comments
    assert "--unshare-net" in pasted
    assert re.findall(r"hostfwd|blockyard\.ssh|joined", pasted) == []


def test_guest_from_a_snapshot_boots_with_its_controllers(setup: VmConfig) -> None:
    comments, pasted = script(setup, replace(OPTIONS, resumed=True))
    assert "started from a snapshot" in comments
    assert "-incoming defer" in comments
    assert "-incoming" not in pasted
    assert '"driver":"nvme"' in pasted


def test_newline_in_a_kernel_name_is_quoted(setup: VmConfig) -> None:
    info = replace(setup.kernel, info=msgspec.structs.replace(samples.info(), name="a\nrm -rf /"))
    comments, _ = script(replace(setup, kernel=info))
    assert comments.startswith("# kernel $'a\\x0arm -rf /' (7.3.4), topology default\n")
