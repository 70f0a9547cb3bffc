# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that are powered off or removed while in use."""

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, smoke, waits
from blockyard.tests.lib.fio import background_io

pytestmark = [needs("configfs"), feature("removal"), waits()]


@needs(program="fio")
@smoke
def test_power_off_under_io(driver: Driver) -> None:
    """Powering off a disk in use fails the I/O on it and nothing else."""
    with driver.disk() as disk, background_io(disk, survives=False):
        assert disk.set_attribute("power", "0") == 0
        assert not disk.exists()


@needs(program="fio")
@smoke
def test_removal_under_io(driver: Driver) -> None:
    disk = driver.create({})
    with background_io(disk, survives=False):
        driver.remove(disk)
    assert not disk.exists()


@needs(program="fio")
def test_removal_under_buffered_writes(driver: Driver) -> None:
    """Dirty pages that can no longer be written are dropped."""
    disk = driver.create(
        driver.persistent_attributes() if "persistent" in driver.capabilities else {}
    )
    with background_io(disk, survives=False, rw="randwrite", ioengine="psync", direct=0, fsync=32):
        driver.remove(disk)
    assert not disk.exists()


def test_open_disk_fails_io_after_power_off(driver: Driver) -> None:
    """An open descriptor stays valid; reads through it fail at once."""
    with driver.disk() as disk:
        read = "dd bs=4k count=1 iflag=direct status=none <&3 2> /dev/null | wc -c"
        result = disk.console.run(
            f"""
            exec 3< {disk.path}
            {read}
            echo 0 > {disk.directory}/power
            {read}
            ls -d {disk.sysfs} 2> /dev/null"""
        )
        assert result.output.split() == ["4096", "0"]


def test_opening_races_with_removal(driver: Driver, budget: Budget) -> None:
    """Processes open and close the disk while it is created and removed."""
    rounds = budget.times(12)
    driver.console.check(
        f"""
        cd {driver.configfs}
        mkdir by-race
        trap 'touch /tmp/race-over; wait; rmdir by-race' EXIT
        rm -f /tmp/race-over
        for opener in 1 2; do
            while [ ! -e /tmp/race-over ]; do
                for disk in /dev/by-race /dev/nullb*; do
                    [ -b $disk ] && : 2> /dev/null < $disk || true
                done
            done 2> /dev/null &
        done
        for round in {{1..{rounds}}}; do
            echo 1 > by-race/power
            echo 0 > by-race/power
        done"""
    )


@pytest.mark.parametrize("workers", [4])
def test_disks_are_created_and_removed_in_parallel(
    driver: Driver, budget: Budget, workers: int
) -> None:
    rounds = budget.times(6)
    driver.console.check(
        f"""
        cd {driver.configfs}
        for worker in {{1..{workers}}}; do
            for round in {{1..{rounds}}}; do
                mkdir by-$worker && echo 1 > by-$worker/power && rmdir by-$worker || exit 1
            done &
            pids+=" $!"
        done
        for pid in $pids; do wait $pid; done"""
    )


def test_concurrent_power_ons_make_one_disk(driver: Driver, disk: Disk) -> None:
    """Several processes switch the power on at once; one disk appears."""
    power = disk.console.check(
        f"""
        echo 0 > {disk.directory}/power
        for switch in 1 2 3 4; do
            echo 1 2> /dev/null > {disk.directory}/power &
        done
        wait
        cat {disk.directory}/power"""
    )
    assert power.strip() == "1"
    assert disk.exists()
