# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O statistics: Documentation/ABI/stable/sysfs-block, "stat" and "inflight"."""

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, smoke
from blockyard.tests.lib.fio import background_io, statistics

pytestmark = feature("statistics")

MIB = 1 << 20


@smoke
def test_statistics_count_reads(disk: Disk) -> None:
    before = statistics(disk)
    disk.console.check(f"dd if={disk.path} of=/dev/null bs=64k count=16 iflag=direct status=none")
    after = statistics(disk)
    # other readers, such as a partition scan, may add to the counters
    assert after["read_sectors"] - before["read_sectors"] >= MIB // 512
    assert after["reads"] - before["reads"] >= 1
    assert after["in_flight"] == 0


@smoke
def test_statistics_count_writes(disk: Disk) -> None:
    """Nothing else writes to the disk, so the counts are exact."""
    before = statistics(disk)
    disk.console.check(f"dd if=/dev/zero of={disk.path} bs=16k count=16 oflag=direct status=none")
    after = statistics(disk)
    assert after["write_sectors"] - before["write_sectors"] == (256 << 10) // 512
    assert after["writes"] - before["writes"] == 16


def test_nothing_is_counted_without_iostats(disk: Disk) -> None:
    assert disk.set_queue("iostats", "0") == 0
    try:
        before = statistics(disk)
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=8 iflag=direct status=none")
        assert statistics(disk) == before
    finally:
        assert disk.set_queue("iostats", "1") == 0


@needs("disk", program="fio")
def test_inflight_counts_pending_requests(driver: Driver) -> None:
    """Requests are in flight under load, on a slow disk at least half of the depth."""
    depth = 16
    slow = "attribute:completion_nsec" in driver.capabilities
    with driver.disk(**({"irqmode": 2, "completion_nsec": 5_000_000} if slow else {})) as disk:
        inflight = f"read -r reads writes < {disk.sysfs}/inflight; echo $((reads + writes))"
        with background_io(disk, iodepth=depth):
            output = disk.console.check(f"for try in {{1..200}}; do {inflight}; done")
        samples = list(map(int, output.split()))
        # tags are counted one by one: a request may end and another get a later tag meanwhile
        assert max(samples) < 2 * depth
        if slow:
            assert max(samples) >= depth // 2
        elif driver.manifest.on_hardware:  # otherwise requests complete as they are submitted
            assert max(samples) > 0, "nothing was ever in flight"
        assert disk.console.check(inflight).strip() == "0"


@needs("attribute:irqmode", "attribute:completion_nsec")
def test_time_in_flight_is_counted(driver: Driver) -> None:
    """Eight reads of 20 ms each add 160 ms to read_ms and io_ms."""
    with driver.disk(irqmode=2, completion_nsec=20_000_000) as disk:
        before = statistics(disk)
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=8 iflag=direct status=none")
        after = statistics(disk)
        assert after["read_ms"] - before["read_ms"] >= 150
        assert after["io_ms"] - before["io_ms"] >= 100
