# SPDX-License-Identifier: GPL-2.0-or-later
"""Which values each attribute accepts and refuses."""

import errno

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import CreateFailed, Driver
from blockyard.tests.harness.requirements import needs

pytestmark = needs("configfs")

NUMBERS = (
    "blocksize",
    "cache_size",
    "completion_nsec",
    "hw_queue_depth",
    "irqmode",
    "max_sectors",
    "mbps",
    "poll_queues",
    "queue_mode",
    "size",
    "submit_queues",
    "zone_append_max_sectors",
    "zone_capacity",
    "zone_max_active",
    "zone_max_open",
    "zone_nr_conv",
    "zone_size",
)
SWITCHES = (
    "badblocks_once",
    "badblocks_partial_io",
    "blocking",
    "discard",
    "fua",
    "memory_backed",
    "no_sched",
    "rotational",
    "shared_tag_bitmap",
    "shared_tags",
    "use_per_node_hctx",
    "virt_boundary",
    "zone_full",
    "zoned",
)
# May change with power on (NULLB_DEVICE_ATTR with an apply function in null_blk/main.c).
LIVE = ("submit_queues", "poll_queues")


def each(*attributes: str) -> list[object]:
    """Return test parameters, each of which needs its attribute."""
    return [pytest.param(name, marks=needs(f"attribute:{name}"), id=name) for name in attributes]


def refusal(driver: Driver, attribute: str, value: str) -> int:
    """Return the errno of writing a value or of the power-on after it; 0 if it is accepted."""
    try:
        with driver.disk(**{attribute: value}):
            return 0
    except CreateFailed as refused:
        return refused.errno


@pytest.mark.parametrize("attribute", each(*NUMBERS))
@pytest.mark.parametrize("value", ["many", "-1", ""])
def test_non_number_is_einval(driver: Driver, attribute: str, value: str) -> None:
    output = driver.console.check(
        f"""
        mkdir {driver.configfs}/by-value
        cd {driver.configfs}/by-value
        trap 'cd /; rmdir {driver.configfs}/by-value' EXIT
        cat {attribute}
        (echo '{value}' > {attribute}) 2>&1 || true
        cat {attribute}"""
    )
    before, *answer, after = output.splitlines()
    assert after == before, "a refused value was kept"
    assert "Invalid argument" in "".join(answer)


@pytest.mark.parametrize("attribute", each(*SWITCHES))
def test_switch_takes_only_booleans(driver: Driver, attribute: str) -> None:
    """kstrtobool() takes 1, y, on and 0, n, off; anything else is EINVAL and changes nothing."""
    output = driver.console.check(
        f"""
        mkdir {driver.configfs}/by-value
        cd {driver.configfs}/by-value
        trap 'cd /; rmdir {driver.configfs}/by-value' EXIT
        for value in 1 0 y n on off; do
            echo $value > {attribute}
            cat {attribute}
        done
        (echo maybe > {attribute}) 2>&1 || true
        cat {attribute}"""
    )
    *values, answer, after = output.splitlines()
    assert values == ["1", "0", "1", "0", "1", "0"]
    assert "Invalid argument" in answer
    assert after == "0"


@pytest.mark.parametrize(
    "attribute", each(*(name for name in (*NUMBERS, *SWITCHES) if name not in LIVE))
)
def test_attribute_is_ebusy_with_power(driver: Driver, attribute: str) -> None:
    """Attributes are fixed while the disk has power; even their own value is refused."""
    with driver.disk() as disk:
        before = disk.attribute(attribute)
        assert disk.set_attribute(attribute, before) == errno.EBUSY
        assert disk.attribute(attribute) == before


@needs("attribute:irqmode")
def test_irqmode_out_of_range_is_refused_or_clamped(driver: Driver) -> None:
    """rnull refuses it; null_blk clamps it (null_validate_conf() in null_blk/main.c)."""
    try:
        with driver.disk(irqmode="9") as disk:
            assert disk.attribute("irqmode") in ("0", "1", "2")
    except CreateFailed as refused:
        assert refused.errno == errno.EINVAL, str(refused)


@needs("attribute:submit_queues")
@pytest.mark.parametrize(("value", "queues"), [("0", 1), ("1000", 2)])
def test_submit_queues_are_clamped(driver: Driver, value: str, queues: int) -> None:
    """At least one queue, at most one per CPU (null_validate_conf())."""
    cpus = int(driver.console.check("nproc --all"))
    with driver.disk(submit_queues=value) as disk:
        assert disk.attribute("submit_queues") == str(min(queues, cpus))


@needs("attribute:queue_mode")
@pytest.mark.parametrize(("mode", "outcome"), [("0", 0), ("1", errno.EINVAL), ("2", 0)])
def test_queue_modes(driver: Driver, mode: str, outcome: int) -> None:
    """0 (bio) means 2 (blk-mq) since 6.10; 1 (single queue) was removed in 5.0."""
    assert refusal(driver, "queue_mode", mode) == outcome


@needs("attribute:zoned", "attribute:zone_size")
@pytest.mark.parametrize("value", ["0", "3", "100"])
def test_zone_size_is_a_power_of_two(driver: Driver, value: str) -> None:
    with pytest.raises(CreateFailed) as refused, driver.disk(zoned=1, zone_size=value):
        pass
    assert refused.value.errno == errno.EINVAL, str(refused.value)


@needs("attribute:index")
def test_indexes_are_unique(driver: Driver) -> None:
    with driver.disk() as disk, driver.disk() as other:
        assert disk.attribute("index") != other.attribute("index")


@needs("attribute:badblocks")
@pytest.mark.parametrize(
    "value", ["1-2", "+5", "+9-3", "+x-y", pytest.param("*1-2", id="star"), "+1-"]
)
def test_malformed_badblocks_are_einval(driver: Driver, disk: Disk, value: str) -> None:
    """The form is +FIRST-LAST or -FIRST-LAST, in sectors."""
    assert disk.set_attribute("badblocks", value) == errno.EINVAL
    assert disk.attribute("badblocks") == ""
