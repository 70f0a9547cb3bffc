# SPDX-License-Identifier: GPL-2.0-or-later
"""Passthrough for an unprivileged user who may open the device nodes.

Since 6.2 Identify is allowed, and I/O that has no side effects according to the controller
(nvme_cmd_allowed() in drivers/nvme/host/ioctl.c). Earlier kernels allow nothing.
"""

from collections.abc import Iterator

import pytest

from blockyard.kernel import versions
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, smoke
from blockyard.tests.lib.nvme import Nvme, generic

pytestmark = [feature("passthrough"), needs("nvme", program="setpriv")]

NOBODY = "setpriv --reuid 65534 --clear-groups nvme"
DENIED = "Permission denied"


@pytest.fixture
def opened(nvme: Nvme) -> Iterator[Nvme]:
    """The controllers, with device nodes that everybody may read and write."""
    nodes = f"{nvme.device()} {nvme.disk().path} {generic(nvme.disk())}"
    modes = nvme.console.check(f"stat --format=%a {nodes}").split()
    nvme.console.check(f"chmod 666 {nodes}")
    yield nvme
    for mode, node in zip(modes, nodes.split(), strict=True):
        nvme.console.check(f"chmod {mode} {node}")


def test_nodes_are_for_root_only(nvme: Nvme) -> None:
    """Other users cannot open the device nodes."""
    for node in (nvme.device(), nvme.disk().path, generic(nvme.disk())):
        assert nvme.console.check(f"stat --format=%a:%u {node}").strip() in ("600:0", "660:0")
        result = nvme.console.run(f"{NOBODY} id-ctrl {node}")
        assert result.exit_code and DENIED in result.output


def test_harmless_commands_are_allowed(driver: Driver, opened: Nvme) -> None:
    """Identify and reads are allowed since 6.2."""
    node = generic(opened.disk())
    allowed = versions.within(driver.kernel.info.release, ">=6.2")
    for command in (
        f"id-ctrl {opened.device()}",
        f"id-ns {node}",
        f"io-passthru {node} --opcode=2 --namespace-id=1 --data-len=512 --read",
    ):
        result = opened.console.run(f"{NOBODY} {command}")
        assert (result.exit_code == 0) == allowed, result.output
        assert allowed or DENIED in result.output


@smoke
def test_other_commands_are_denied(opened: Nvme) -> None:
    """Logs, formats, vendor commands, resets, and writes through a node opened for reading."""
    disk, device = opened.disk(), opened.device()
    node = generic(disk)
    opened.console.check(f"dd if=/dev/zero of={disk.path} bs=4k count=1 oflag=direct status=none")
    for command in (
        f"smart-log {device}",
        f"admin-passthru {device} --opcode=0xd0",
        f"set-feature {device} --feature-id=4 --value=300",
        f"io-passthru {node} --opcode=0x99 --namespace-id=1",
        f"io-passthru {node} --opcode=1 --namespace-id=1 --data-len=512 --write"
        " --input-file=/tmp/nvme-data",
        f"format {disk.path} --force",
        f"reset {device}",
        f"ns-rescan {device}",
    ):
        result = opened.console.run(f"{NOBODY} {command}")
        assert result.exit_code and DENIED in result.output, f"{command}: {result.output}"
    opened.console.check(
        f"dd if={disk.path} bs=4k count=1 iflag=direct status=none | cmp -n 4096 - /dev/zero"
    )


def test_passthrough_on_a_partition_is_denied(opened: Nvme) -> None:
    """LBAs of a command count from the namespace's start, so it could reach other partitions."""
    disk = opened.disk()
    part = f"{disk.path}p1"
    opened.console.check(
        f"""
        printf 'label: gpt\\n,16M\\n' | sfdisk --quiet --wipe always {disk.path}
        wait_until 5 [ -b {part} ]
        chmod 666 {part}"""
    )
    try:
        result = opened.console.run(
            f"{NOBODY} io-passthru {part} --opcode=2 --namespace-id=1 --data-len=512 --read"
        )
    finally:
        opened.console.check(
            f"wipefs --quiet --all --force {disk.path}; blockdev --rereadpt {disk.path}"
        )
    assert result.exit_code and DENIED in result.output, result.output
