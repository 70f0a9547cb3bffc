# SPDX-License-Identifier: GPL-2.0-or-later
"""The configfs face of a driver: its attributes, what they take and what they refuse."""

import errno

import pytest

from modules.disk import Disk
from modules.driver import CreateFailed, Driver
from tests.needs import needs

pytestmark = needs("configfs")


def attributes(driver: Driver) -> set[str]:
    return {
        name.removeprefix("attribute:")
        for name in driver.capabilities
        if name.startswith("attribute:")
    }


@needs("features")
def test_features_lists_what_there_is(driver: Driver) -> None:
    """`features` is what user space goes by: nothing more in it, nothing less."""
    listed = set(driver.console.check(f"cat {driver.configfs}/features").strip().split(","))
    there = attributes(driver)
    assert listed - there == set(), "features names attributes that do not exist"
    # power is there from the first version on; not every driver lists it
    assert there - listed <= {"power"}, "features does not name these attributes"


def test_every_readable_attribute_can_be_read(driver: Driver, disk: Disk) -> None:
    driver.console.check(
        f"""
        cd {disk.directory}
        for attribute in *; do
            case $(stat -c %A $attribute) in
            -r*) cat $attribute > /dev/null || exit ;;
            esac
        done"""
    )


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("size", "many"),
        ("size", "-1"),
        ("blocksize", "513"),
        ("blocksize", "big"),
        ("irqmode", "on"),
        ("rotational", "maybe"),
    ],
)
def test_bad_value_is_einval(driver: Driver, attribute: str, value: str) -> None:
    """A value that makes no sense is refused: when it is written, or at the latest at power-on."""
    if attribute not in attributes(driver):
        pytest.skip(f"{driver.name} has no attribute {attribute}")
    with pytest.raises(CreateFailed) as refused, driver.disk(**{attribute: value}):
        pass
    assert refused.value.errno == errno.EINVAL, str(refused.value)


@needs("attribute:irqmode")
def test_irqmode_out_of_range_never_comes_to_be(driver: Driver) -> None:
    """Rust refuses it; C takes the nearest (null_validate_conf() in null_blk/main.c)."""
    try:
        with driver.disk(irqmode="9") as disk:
            assert disk.attribute("irqmode") in ("0", "1", "2")
    except CreateFailed as refused:
        assert refused.errno == errno.EINVAL, str(refused)


def test_bad_power_is_einval(disk: Disk) -> None:
    assert disk.set_attribute("power", "2x") == errno.EINVAL
    assert disk.exists(), "a refused value took the disk away"


@pytest.mark.parametrize("attribute", ["size", "blocksize", "irqmode", "rotational"])
def test_powered_attribute_is_ebusy(driver: Driver, disk: Disk, attribute: str) -> None:
    """What a disk is made of cannot change under its users."""
    if attribute not in attributes(driver):
        pytest.skip(f"{driver.name} has no attribute {attribute}")
    before = disk.attribute(attribute)
    assert disk.set_attribute(attribute, before) == errno.EBUSY
    assert disk.attribute(attribute) == before


def test_power_off_and_on(driver: Driver) -> None:
    with driver.disk() as disk:
        assert disk.set_attribute("power", "0") == 0
        assert not disk.exists(), f"{disk.path} is still there without power"
        assert disk.set_attribute("power", "1") == 0
        assert disk.exists(), f"{disk.path} does not come back with power"


def test_power_on_twice_changes_nothing(disk: Disk) -> None:
    disk.set_attribute("power", "1")
    assert disk.exists()
    assert disk.attribute("power") == "1"


@needs("attribute:rotational")
@pytest.mark.parametrize("value", ["0", "1"])
def test_rotational_shows_in_the_queue(driver: Driver, value: str) -> None:
    with driver.disk(rotational=value) as disk:
        assert disk.queue("rotational") == value


@needs("attribute:irqmode")
@pytest.mark.parametrize("mode", ["0", "1", "2"])
def test_irqmode_completes_io(driver: Driver, mode: str) -> None:
    """Completion inline (0), by softirq (1), by timer (2)."""
    try:
        with driver.disk(irqmode=mode) as disk:
            assert disk.attribute("irqmode") == mode
            disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=64 iflag=direct")
    except CreateFailed as refused:
        if mode == "2" and refused.errno == errno.EINVAL:
            pytest.skip(f"{driver.name} has no irqmode 2 (timer)")
        raise


def test_directory_names_are_unique(driver: Driver, disk: Disk) -> None:
    result = driver.console.run(f"mkdir {disk.directory}")
    assert result.exit_code != 0
    assert "File exists" in result.output
