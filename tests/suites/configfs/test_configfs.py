# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks of configfs: `features`, life and death of directories, power."""

import errno

import pytest

from blockyard.kernel import versions
from blockyard.modules.disk import Disk, read_file
from blockyard.modules.driver import CreateFailed, Driver
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib import null_blk

pytestmark = [needs("configfs"), feature("configfs")]


@needs("features")
@feature("features file")
@smoke
def test_features_lists_the_attributes(driver: Driver) -> None:
    """`features` is what user space goes by: nothing more in it, nothing less."""
    listed = driver.console.check(f"cat {driver.configfs}/features").strip().split(",")
    assert len(set(listed)) == len(listed), "features names an attribute twice"
    there = driver.attributes
    assert set(listed) - there == set(), "features names attributes that do not exist"
    # power is there from the first version on; not every driver lists it
    assert there - set(listed) <= {"power"}, "features does not name these attributes"


def test_no_attribute_is_missing(driver: Driver) -> None:
    """User space counts on them, and a test of one that is gone would be skipped."""
    if driver.configfs != null_blk.CONFIGFS:
        pytest.skip(f"{driver.name} is not null_blk; tests of `abi` say what it lacks")
    if not versions.within(driver.kernel.info.release, ">=7.3"):
        skip("kernel", "the list of attributes is that of 7.3")
    assert set(null_blk.ATTRIBUTES) - driver.attributes == set()


@smoke
def test_every_readable_attribute_can_be_read(driver: Driver, disk: Disk) -> None:
    driver.console.check(
        f"""
        cd {disk.directory}
        for attribute in *; do
            [ -f $attribute ] || continue
            case $(stat -c %A $attribute) in
            -r*) cat $attribute > /dev/null || exit ;;
            esac
        done"""
    )


def test_a_new_directory_has_no_disk(driver: Driver) -> None:
    """A disk comes with power, not before."""
    told = driver.console.check(
        f"""
        before=$(echo /sys/block/*)
        mkdir {driver.configfs}/by-new
        trap 'rmdir {driver.configfs}/by-new' EXIT
        [ "$(echo /sys/block/*)" = "$before" ] && cat {driver.configfs}/by-new/power"""
    )
    assert told.strip() == "0"


def test_invalid_power_is_einval(disk: Disk) -> None:
    assert disk.set_attribute("power", "2x") == errno.EINVAL
    assert disk.exists(), "a refused value took the disk away"


@smoke
def test_power_off_and_on(driver: Driver) -> None:
    with driver.disk() as disk:
        assert disk.set_attribute("power", "0") == 0
        assert not disk.exists(), f"{disk.path} is still there without power"
        assert disk.attribute("power") == "0"
        assert disk.set_attribute("power", "1") == 0
        assert disk.exists(), f"{disk.path} does not come back with power"


def test_settings_survive_a_power_cycle(driver: Driver) -> None:
    with driver.disk(size=3, blocksize=1024) as disk:
        assert disk.set_attribute("power", "0") == 0
        assert (disk.attribute("size"), disk.attribute("blocksize")) == ("3", "1024")
        assert disk.set_attribute("power", "1") == 0
        assert (disk.size_bytes, disk.block_size) == (3 << 20, 1024)


def test_settings_can_change_without_power(driver: Driver) -> None:
    """What was EBUSY with power is free without, and counts from the next power on."""
    with driver.disk(size=3) as disk:
        assert disk.set_attribute("size", "5") == errno.EBUSY
        assert disk.set_attribute("power", "0") == 0
        assert disk.set_attribute("size", "5") == 0
        assert disk.set_attribute("power", "1") == 0
        assert disk.size_bytes == 5 << 20


def test_power_on_twice_changes_nothing(disk: Disk) -> None:
    """It is not another disk (by its sequence number) either."""
    sequence = read_file(disk.console, f"{disk.sysfs}/diskseq")
    assert disk.set_attribute("power", "1") == 0
    assert disk.attribute("power") == "1"
    assert read_file(disk.console, f"{disk.sysfs}/diskseq") == sequence


def test_directory_names_are_unique(driver: Driver, disk: Disk) -> None:
    result = driver.console.run(f"mkdir {disk.directory}")
    assert result.exit_code != 0
    assert "File exists" in result.output


@smoke
def test_rmdir_removes_the_disk(driver: Driver) -> None:
    with driver.disk() as disk:
        assert disk.exists()
    assert not disk.exists(), f"{disk.path} is still there after rmdir"


@feature("many disks")
def test_many_disks_at_once(driver: Driver, budget: Budget) -> None:
    """All of them work, each has a number and a name of its own."""
    count = budget.times(16)
    told = driver.console.check(
        f"""
        cd {driver.configfs}
        trap 'rmdir {driver.configfs}/by-many-*' EXIT
        before=" $(echo /sys/block/*) "
        for number in {{1..{count}}}; do
            mkdir by-many-$number
            echo 8 > by-many-$number/size
            echo 1 > by-many-$number/power
        done
        for disk in /sys/block/*; do
            case $before in *" $disk "*) continue ;; esac
            dd if=/dev/${{disk##*/}} of=/dev/null bs=4k count=4 iflag=direct status=none
            cat $disk/dev
        done""",
        timeout_s=120,
    )
    numbers = told.split()
    assert len(numbers) == len(set(numbers)) == count


@smoke
def test_create_and_destroy_loops(driver: Driver, budget: Budget) -> None:
    """Nothing is lost on the way: memory, names, numbers."""
    driver.console.check(
        f"""
        cd {driver.configfs}
        for round in {{1..{budget.times(20)}}}; do
            mkdir by-loop
            echo 8 > by-loop/size
            echo 1 > by-loop/power
            rmdir by-loop
        done""",
        timeout_s=120,
    )


@pytest.mark.parametrize("length", [1, 20, 31, 32, 60])
def test_disk_name_of_any_length_is_safe(driver: Driver, length: int) -> None:
    """A name that is too long for a disk (DISK_NAME_LEN is 32) is cut or refused, never overrun."""
    name = "n" * length
    result = driver.console.run(
        f"""
        before=" $(echo /sys/block/*) "
        mkdir {driver.configfs}/{name} || exit 9
        trap 'rmdir {driver.configfs}/{name}' EXIT
        echo 1 > {driver.configfs}/{name}/power || exit 9
        for disk in /sys/block/*; do
            case $before in *" $disk "*) continue ;; esac
            echo ${{disk##*/}}
        done"""
    )
    if result.exit_code == 9:
        assert length >= 32, f"a name of {length} characters was refused: {result.output}"
        return
    made = result.output.strip()
    assert made
    assert len(made) < 32


@needs("attribute:size")
@pytest.mark.parametrize("size_mib", [1, 100, 4096, 16 << 20])
@smoke
def test_size_is_as_configured(driver: Driver, size_mib: int) -> None:
    with driver.disk(size=size_mib) as disk:
        assert disk.size_bytes == size_mib << 20
        assert disk.console.check(f"cat {disk.sysfs}/size").strip() == str(size_mib << 11)


@needs("attribute:blocksize")
@pytest.mark.parametrize("value", ["0", "256", "513", "3000", "8192", "65536"])
@smoke
def test_block_size_out_of_range_is_einval(driver: Driver, value: str) -> None:
    """Powers of two from 512 bytes to a page; with large blocks in the page cache, up to 64 KiB."""
    try:
        with driver.disk(blocksize=value) as disk:
            assert int(value) >= 8192, f"a block size of {value} was taken"
            assert disk.block_size == int(value)
            disk.console.check(f"dd if={disk.path} of=/dev/null bs={value} count=2 iflag=direct")
    except CreateFailed as refused:
        assert refused.errno == errno.EINVAL, str(refused)
