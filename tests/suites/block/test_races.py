# SPDX-License-Identifier: GPL-2.0-or-later
"""Events while a disk is in use: partition rescans, opens, CPU hot-unplug, queue settings."""

import pytest

from blockyard.modules.disk import Disk
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib.fio import background_io

pytestmark = [needs(program="fio"), feature("changes under load")]


@smoke
def test_partitions(data_disk: Disk) -> None:
    """Partitions appear, hold their own data and disappear."""
    disk = data_disk
    digit = disk.name[-1].isdigit()
    part = f"{disk.name}{'p' if digit else ''}"
    disk.console.check(
        f"""
        printf 'label: gpt\\n,8M\\n,16M\\n' | sfdisk --quiet --wipe always {disk.path}
        wait_until 5 [ -b /dev/{part}2 ]
        test $(blockdev --getsize64 /dev/{part}1) = $((8 << 20))
        test $(blockdev --getsize64 /dev/{part}2) = $((16 << 20))
        head -c 1M /dev/urandom > /tmp/data
        dd if=/tmp/data of=/dev/{part}2 bs=1M oflag=direct status=none
        dd if=/dev/{part}2 bs=1M count=1 iflag=direct status=none | cmp - /tmp/data
        start=$(cat {disk.sysfs}/{part}2/start)
        dd if={disk.path} bs=512 skip=$start count=2048 iflag=direct status=none | cmp - /tmp/data
        wipefs --quiet --all --force {disk.path}
        blockdev --rereadpt {disk.path}
        test ! -e {disk.sysfs}/{part}1"""
    )


@pytest.fixture
def partitioned_disk(disk: Disk) -> Disk:
    """A disk that may have partitions; others refuse to scan for them."""
    if not disk.takes_partitions:
        skip("driver", f"{disk.name} does not support partitions")
    return disk


def test_rereading_the_partition_table_under_io(partitioned_disk: Disk, budget: Budget) -> None:
    disk = partitioned_disk
    with background_io(disk):
        disk.console.check(
            f"for try in {{1..{budget.times(12)}}}; do blockdev --rereadpt {disk.path}; done"
        )


def test_opening_races_with_rereading_partitions(partitioned_disk: Disk, budget: Budget) -> None:
    """A reread may fail with EBUSY, but must not hang or lose the disk."""
    disk = partitioned_disk
    disk.console.check(
        f"""
        rm -f /tmp/race-over
        trap 'touch /tmp/race-over' EXIT
        for opener in 1 2 3; do
            while [ ! -e /tmp/race-over ]; do : < {disk.path}; done &
            openers+=" $!"
        done
        for try in {{1..{budget.times(12)}}}; do
            blockdev --rereadpt {disk.path} 2> /tmp/why || grep -q "resource busy" /tmp/why ||
                {{ cat /tmp/why; exit 1; }}
        done
        touch /tmp/race-over
        for opener in $openers; do wait $opener; done"""
    )
    assert disk.exists()


def test_flushing_buffers_under_io(disk: Disk, budget: Budget) -> None:
    # without fsync the I/O would soon stay in the page cache
    with background_io(disk, ioengine="psync", direct=0, fsync=32):
        disk.console.check(
            f"for try in {{1..{budget.times(10)}}}; do blockdev --flushbufs {disk.path}; done"
        )


def test_cpu_goes_offline_under_io(disk: Disk, budget: Budget) -> None:
    """Requests of an offlined CPU complete on another; the CPU works again when it is back."""
    cpu = "/sys/devices/system/cpu/cpu1/online"
    if disk.console.run(f"test -w {cpu}").exit_code:
        skip("hardware", "the guest has no CPU that can go offline")
    with background_io(disk, numjobs=2):
        try:
            for _ in range(budget.times(3)):
                disk.console.check(f"echo 0 > {cpu}; echo 1 > {cpu}", timeout_s=30)
        finally:
            disk.console.check(f"echo 1 > {cpu}")


@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        ("read_ahead_kb", ("0", "512")),
        ("nomerges", ("0", "1", "2")),
        ("rq_affinity", ("0", "1", "2")),
        ("iostats", ("0", "1")),
        ("max_sectors_kb", ("4", "64")),
        ("io_timeout", ("1000", "30000")),
        ("add_random", ("0", "1")),
    ],
)
def test_queue_attribute_changes_under_io(
    disk: Disk, attribute: str, values: tuple[str, ...]
) -> None:
    """A setting takes effect at once, and the I/O goes on."""
    path = f"{disk.sysfs}/queue/{attribute}"
    if disk.console.run(f"test -w {path}").exit_code:
        skip("kernel", f"this kernel has no {attribute}")
    before = disk.queue(attribute)
    with background_io(disk):
        try:
            for value in values:
                assert disk.set_queue(attribute, value) == 0
                assert disk.queue(attribute) == value
        finally:
            assert disk.set_queue(attribute, before) == 0


def test_every_queue_attribute_can_be_read_under_io(disk: Disk) -> None:
    with background_io(disk):
        errors = disk.console.check(
            f"""
            for file in {disk.sysfs}/queue/* {disk.sysfs}/mq/*/*; do
                [ -r $file ] && [ -f $file ] || continue
                cat $file > /dev/null 2> /tmp/why || echo "$file: $(< /tmp/why)"
            done"""
        )
    # attributes that do not apply to this disk answer EINVAL, such as wbt_lat_usec
    assert all("Invalid argument" in line for line in errors.splitlines()), errors


@needs(symbol="BLK_DEBUG_FS")
def test_debugfs_can_be_read_under_io(disk: Disk) -> None:
    """blk-mq's debugfs files (CONFIG_BLK_DEBUG_FS) show requests while they start and end."""
    folder = f"/sys/kernel/debug/block/{disk.name}"
    with background_io(disk):
        disk.console.check(
            f"""
            test -e {folder}/hctx0/flags
            for try in 1 2 3; do
                find {folder} -type f -perm -400 -exec cat {{}} + > /dev/null
            done"""
        )


def test_io_works_from_every_cpu(disk: Disk) -> None:
    """Each CPU can submit I/O and is mapped to a queue."""
    cpus = disk.console.check(
        f"""
        for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
            taskset --cpu-list ${{cpu##*cpu}} \
                dd if={disk.path} of=/dev/null bs=4k count=4 iflag=direct status=none
            echo ${{cpu##*cpu}}
        done"""
    )
    maps = disk.console.check(f"cat {disk.sysfs}/mq/*/cpu_list")
    mapped = {int(cpu) for line in maps.splitlines() for cpu in line.split(",") if cpu.strip()}
    assert set(map(int, cpus.split())) <= mapped
