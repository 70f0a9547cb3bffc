# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody may who is not root, with the nodes opened for everybody.

Since 6.2 that depends on the command: Identify, and I/O that the controller says has no effects
beyond it (nvme_cmd_allowed() in drivers/nvme/host/ioctl.c). Before, nothing was allowed.
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
    """The nodes are readable and writable for everybody."""
    nodes = f"{nvme.device()} {nvme.disk().path} {generic(nvme.disk())}"
    modes = nvme.console.check(f"stat --format=%a {nodes}").split()
    nvme.console.check(f"chmod 666 {nodes}")
    yield nvme
    for mode, node in zip(modes, nodes.split(), strict=True):
        nvme.console.check(f"chmod {mode} {node}")


def test_nodes_are_for_root_only(nvme: Nvme) -> None:
    """Nobody else gets as far as the driver."""
    for node in (nvme.device(), nvme.disk().path, generic(nvme.disk())):
        assert nvme.console.check(f"stat --format=%a:%u {node}").strip() in ("600:0", "660:0")
        told = nvme.console.run(f"{NOBODY} id-ctrl {node}")
        assert told.exit_code and DENIED in told.output


def test_harmless_commands_are_allowed(driver: Driver, opened: Nvme) -> None:
    """Identify and reads; none of it in kernels before 6.2."""
    node = generic(opened.disk())
    allowed = versions.within(driver.kernel.info.release, ">=6.2")
    for command in (
        f"id-ctrl {opened.device()}",
        f"id-ns {node}",
        f"io-passthru {node} --opcode=2 --namespace-id=1 --data-len=512 --read",
    ):
        told = opened.console.run(f"{NOBODY} {command}")
        assert (told.exit_code == 0) == allowed, told.output
        assert allowed or DENIED in told.output


@smoke
def test_other_commands_are_denied(opened: Nvme) -> None:
    """Logs, formats, vendors' commands, resets; a write by a node that is open for reading."""
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
        told = opened.console.run(f"{NOBODY} {command}")
        assert told.exit_code and DENIED in told.output, f"{command}: {told.output}"
    opened.console.check(
        f"dd if={disk.path} bs=4k count=1 iflag=direct status=none | cmp -n 4096 - /dev/zero"
    )


def test_passthrough_on_a_partition_is_denied(opened: Nvme) -> None:
    """A command's block numbers are the namespace's, so it would reach beyond the partition."""
    disk = opened.disk()
    part = f"{disk.path}p1"
    opened.console.check(
        f"""
        printf 'label: gpt\\n,16M\\n' | sfdisk --quiet --wipe always {disk.path}
        wait_until 5 [ -b {part} ]
        chmod 666 {part}"""
    )
    try:
        told = opened.console.run(
            f"{NOBODY} io-passthru {part} --opcode=2 --namespace-id=1 --data-len=512 --read"
        )
    finally:
        opened.console.check(
            f"wipefs --quiet --all --force {disk.path}; blockdev --rereadpt {disk.path}"
        )
    assert told.exit_code and DENIED in told.output, told.output
