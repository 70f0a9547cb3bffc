# SPDX-License-Identifier: GPL-2.0-or-later
"""A disk's size and block size, and I/O past its end."""

from blockyard.modules.disk import Disk
from blockyard.tests.harness.guests import Guest
from blockyard.tests.harness.requirements import needs, smoke


@needs("nvme")
@smoke
def test_size_is_the_namespace_size(guest: Guest, disk: Disk) -> None:
    namespace = guest.machine.setup.topology.controllers[0].namespaces[0]
    assert disk.size_bytes == namespace.size_mib << 20
    assert disk.block_size == namespace.block_size


@smoke
def test_reading_past_the_end_reads_nothing(disk: Disk) -> None:
    end = disk.size_bytes // 4096
    count = disk.console.check(
        f"dd if={disk.path} bs=4k skip={end} count=1 status=none | wc -c"
    ).strip()
    assert count == "0"


@smoke
def test_writing_past_the_end_is_enospc(disk: Disk) -> None:
    end = disk.size_bytes // 4096
    result = disk.console.run(
        f"dd if=/dev/zero of={disk.path} bs=4k seek={end} count=1 oflag=direct status=none"
    )
    assert result.exit_code != 0
    assert "No space left on device" in result.output
