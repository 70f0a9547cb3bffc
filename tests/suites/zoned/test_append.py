# SPDX-License-Identifier: GPL-2.0-or-later
"""Zone Append: the device chooses where to write and reports it.

User space can append by passthrough only, so these tests are for NVMe. Status codes are from the
NVMe Zoned Namespace Command Set specification, "Status Values".
"""

import re

from blockyard.images.console.result import Result
from blockyard.tests.harness.requirements import feature, needs, topology
from blockyard.tests.lib import nvme
from blockyard.tests.lib.zones import DATA, UNIT, Condition, ZonedDisk

pytestmark = [
    feature("zoned"),
    topology("zns"),
    needs("nvme", program="nvme"),
]

ZONE_BOUNDARY_ERROR = 0x1B8
ZONE_IS_FULL = 0x1B9


def command(zoned: ZonedDisk, number: int, offset_blocks: int = 0) -> str:
    """The nvme-cli command that appends UNIT bytes to a zone."""
    block = zoned.layout.zone_size // zoned.disk.block_size * number + offset_blocks
    return (
        f"nvme zns zone-append {zoned.disk.path} --zslba={block} --data={DATA} --data-size={UNIT}"
    )


def append(zoned: ZonedDisk, number: int, offset_blocks: int = 0) -> Result:
    return zoned.disk.console.run(command(zoned, number, offset_blocks))


def offsets(output: str, zoned: ZonedDisk) -> list[int]:
    """Where each append wrote its data: byte offsets, in the order of completion."""
    blocks = re.findall(r"appended data to LBA ([0-9a-f]+)", output)
    return [int(block, 16) * zoned.disk.block_size for block in blocks]


def test_append_reports_where_it_wrote(zoned_disk: ZonedDisk) -> None:
    number = 2
    start = number * zoned_disk.layout.zone_size
    for written in (0, UNIT):
        assert offsets(append(zoned_disk, number).output, zoned_disk) == [start + written]
        assert zoned_disk.holds(number, written)
    assert zoned_disk.zone(number).written == 2 * UNIT
    assert zoned_disk.zone(number).condition == Condition.IMPLICITLY_OPEN


def test_appends_and_writes_can_alternate(zoned_disk: ZonedDisk) -> None:
    assert zoned_disk.write(0) == 0
    assert offsets(append(zoned_disk, 0).output, zoned_disk) == [UNIT]
    assert zoned_disk.zone(0).written == 2 * UNIT
    assert zoned_disk.holds(0, UNIT)


def test_concurrent_appends_do_not_overlap(zoned_disk: ZonedDisk) -> None:
    append_one = command(zoned_disk, 1)
    output = zoned_disk.disk.console.check(f"for i in {{1..6}}; do {append_one} & done; wait")
    start = zoned_disk.layout.zone_size
    assert sorted(offsets(output, zoned_disk)) == [start + at * UNIT for at in range(6)]
    assert zoned_disk.zone(1).written == 6 * UNIT
    assert all(zoned_disk.holds(1, at * UNIT) for at in range(6))


def test_append_needs_a_zone_start_and_room(zoned_disk: ZonedDisk) -> None:
    """It must name the first block of a zone and fit in full; nothing is written otherwise."""
    assert nvme.status(append(zoned_disk, 0, offset_blocks=1)) == nvme.INVALID_FIELD
    capacity, block = zoned_disk.layout.capacity, zoned_disk.disk.block_size
    assert zoned_disk.write(0, 0, capacity - (1 << 20)) == 0
    assert zoned_disk.write(0, capacity - (1 << 20), (1 << 20) - block) == 0
    assert nvme.status(append(zoned_disk, 0)) == ZONE_BOUNDARY_ERROR
    assert zoned_disk.zone(0).written == capacity - block
    assert zoned_disk.manage("finish", 0) == 0
    assert nvme.status(append(zoned_disk, 0)) == ZONE_IS_FULL
