# SPDX-License-Identifier: GPL-2.0-or-later
"""configfs disks: `features`, creating and removing directories, power."""

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
    """User space relies on `features`: it must list exactly the existing attributes."""
    listed = driver.console.check(f"cat {driver.configfs}/features").strip().split(",")
    assert len(set(listed)) == len(listed), "features names an attribute twice"
    attributes = driver.attributes
    assert set(listed) - attributes == set(), "features names attributes that do not exist"
    # `power` has always existed, and not every driver lists it
    assert attributes - set(listed) <= {"power"}, "features does not name these attributes"


def test_no_attribute_is_missing(driver: Driver) -> None:
    """User space relies on them, and tests of a missing attribute would be skipped."""
    if driver.configfs != null_blk.CONFIGFS:
        pytest.skip(f"{driver.name} is not null_blk; the suite `abi` compares its attributes")
    if not versions.within(driver.kernel.info.release, ">=7.3"):
        skip("kernel", "the list of attributes is for Linux 7.3 and later")
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
    """The disk appears with power, not before."""
    power = driver.console.check(
        f"""
        before=$(echo /sys/block/*)
        mkdir {driver.configfs}/by-new
        trap 'rmdir {driver.configfs}/by-new' EXIT
        [ "$(echo /sys/block/*)" = "$before" ] && cat {driver.configfs}/by-new/power"""
    )
    assert power.strip() == "0"


def test_invalid_power_is_einval(disk: Disk) -> None:
    assert disk.set_attribute("power", "2x") == errno.EINVAL
    assert disk.exists(), "a refused value removed the disk"


@smoke
def test_power_off_and_on(driver: Driver) -> None:
    with driver.disk() as disk:
        assert disk.set_attribute("power", "0") == 0
        assert not disk.exists(), f"{disk.path} is still there without power"
        assert disk.attribute("power") == "0"
        assert disk.set_attribute("power", "1") == 0
        assert disk.exists(), f"{disk.path} did not come back with power"


def test_settings_survive_a_power_cycle(driver: Driver) -> None:
    with driver.disk(size=3, blocksize=1024) as disk:
        assert disk.set_attribute("power", "0") == 0
        assert (disk.attribute("size"), disk.attribute("blocksize")) == ("3", "1024")
        assert disk.set_attribute("power", "1") == 0
        assert (disk.size_bytes, disk.block_size) == (3 << 20, 1024)


def test_settings_can_change_without_power(driver: Driver) -> None:
    """Attributes are EBUSY with power; changes without it apply at the next power-on."""
    with driver.disk(size=3) as disk:
        assert disk.set_attribute("size", "5") == errno.EBUSY
        assert disk.set_attribute("power", "0") == 0
        assert disk.set_attribute("size", "5") == 0
        assert disk.set_attribute("power", "1") == 0
        assert disk.size_bytes == 5 << 20


def test_power_on_twice_changes_nothing(disk: Disk) -> None:
    """The disk stays the same one, as its sequence number shows."""
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
    """All of them work, each with its own device number and name."""
    count = budget.times(16)
    output = driver.console.check(
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
    numbers = output.split()
    assert len(numbers) == len(set(numbers)) == count


@smoke
def test_create_and_destroy_loops(driver: Driver, budget: Budget) -> None:
    """Nothing leaks: no memory, names or device numbers."""
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
    """A name too long for a disk (DISK_NAME_LEN is 32) is cut or refused and overruns nothing."""
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
    disk_name = result.output.strip()
    assert disk_name
    assert len(disk_name) < 32


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
    """Valid sizes are powers of two from 512 bytes to a page, to 64 KiB with large folios."""
    try:
        with driver.disk(blocksize=value) as disk:
            assert int(value) >= 8192, f"a block size of {value} was accepted"
            assert disk.block_size == int(value)
            disk.console.check(f"dd if={disk.path} of=/dev/null bs={value} count=2 iflag=direct")
    except CreateFailed as refused:
        assert refused.errno == errno.EINVAL, str(refused)
