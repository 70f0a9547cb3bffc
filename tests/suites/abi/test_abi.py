# SPDX-License-Identifier: GPL-2.0-or-later
"""A Rust driver beside the C driver of the same promises: what user space can tell apart.

What the Rust driver lacks is a skip that names it; what it has but does otherwise is a failure that
says how. Differences that are known stand in tests/known_failures.toml.
"""

import pytest

from modules.driver import Driver
from tests import surface
from tests.guests import Guest
from tests.needs import feature, needs, smoke
from tests.surface import Surface

pytestmark = needs("configfs", "counterpart")

# What C null_blk has had up to 7.3; one that comes later is found by `attributes_are_the_same`.
ATTRIBUTES = (
    "badblocks",
    "badblocks_once",
    "badblocks_partial_io",
    "blocking",
    "blocksize",
    "cache_size",
    "completion_nsec",
    "discard",
    "fua",
    "home_node",
    "hw_queue_depth",
    "index",
    "irqmode",
    "max_sectors",
    "mbps",
    "memory_backed",
    "no_sched",
    "poll_queues",
    "power",
    "queue_mode",
    "rotational",
    "shared_tag_bitmap",
    "shared_tags",
    "size",
    "submit_queues",
    "use_per_node_hctx",
    "virt_boundary",
    "zone_append_max_sectors",
    "zone_capacity",
    "zone_full",
    "zone_max_active",
    "zone_max_open",
    "zone_nr_conv",
    "zone_offline",
    "zone_readonly",
    "zone_size",
    "zoned",
)
QUEUE = (
    "add_random",
    "chunk_sectors",
    "dax",
    "discard_granularity",
    "discard_max_bytes",
    "discard_max_hw_bytes",
    "discard_zeroes_data",
    "dma_alignment",
    "fua",
    "hw_sector_size",
    "io_poll",
    "io_poll_delay",
    "iostats",
    "logical_block_size",
    "max_discard_segments",
    "max_hw_sectors_kb",
    "max_integrity_segments",
    "max_sectors_kb",
    "max_segment_size",
    "max_segments",
    "minimum_io_size",
    "nomerges",
    "nr_requests",
    "nr_zones",
    "optimal_io_size",
    "physical_block_size",
    "read_ahead_kb",
    "rotational",
    "rq_affinity",
    "scheduler",
    "stable_writes",
    "virt_boundary_mask",
    "write_cache",
    "write_zeroes_max_bytes",
    "zone_append_max_bytes",
    "zoned",
)

Pair = tuple[Surface, Surface]


@pytest.fixture
def pair(guest: Guest, driver: Driver) -> Pair:
    """The surfaces of the C driver and of the Rust one under test."""
    if driver.manifest.counterpart not in guest.surfaces:
        with surface.counterpart(driver) as other:
            guest.surfaces[driver.manifest.counterpart] = surface.read(other)
        guest.surfaces[driver.name] = surface.read(driver)
    return guest.surfaces[driver.manifest.counterpart], guest.surfaces[driver.name]


def in_both(pair: Pair, driver: Driver, attribute: str) -> None:
    c, rust = pair
    if attribute not in c.modes:
        pytest.skip(f"{driver.manifest.counterpart} has no attribute {attribute} in this kernel")
    if attribute not in rust.modes:
        pytest.skip(f"{driver.name} has no attribute {attribute}")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_permissions_are_the_same(pair: Pair, driver: Driver, attribute: str) -> None:
    in_both(pair, driver, attribute)
    c, rust = pair
    assert rust.modes[attribute] == c.modes[attribute]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_defaults_are_the_same(pair: Pair, driver: Driver, attribute: str) -> None:
    in_both(pair, driver, attribute)
    c, rust = pair
    told = f"C {c.defaults[attribute]}, Rust {rust.defaults[attribute]}"
    assert rust.defaults[attribute] == c.defaults[attribute], told


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_values_meet_the_same_answer(pair: Pair, driver: Driver, attribute: str) -> None:
    """The same is taken, the same is refused, with the same error, and reads back the same."""
    in_both(pair, driver, attribute)
    if "w" not in pair[0].modes[attribute]:
        pytest.skip(f"{attribute} cannot be written")
    c, rust = (one.answers[attribute] for one in pair)
    differences = [
        f"{value!r}: C {surface.told(c[value])}, Rust {surface.told(rust[value])}"
        for value in surface.VALUES
        if surface.told(c[value]) != surface.told(rust[value])
    ]
    assert not differences, "; ".join(differences)


@pytest.mark.parametrize("attribute", QUEUE)
@feature("queue limits")
def test_queues_are_the_same(pair: Pair, driver: Driver, attribute: str) -> None:
    """Disks that are made of the same: equal size, block size and way of completion."""
    c, rust = (one.queue.get(attribute) for one in pair)
    if c is None and rust is None:
        pytest.skip(f"this kernel has no queue attribute {attribute}")
    assert rust == c, f"C {c}, Rust {rust}"


@feature("sysfs files")
@smoke
def test_sysfs_has_the_same_files(pair: Pair) -> None:
    c, rust = pair
    assert rust.files == c.files, (
        f"only C: {sorted(c.files - rust.files)}, only Rust: {sorted(rust.files - c.files)}"
    )


@feature("configfs")
@smoke
def test_the_rust_driver_invents_no_attributes(pair: Pair) -> None:
    """What only the Rust driver has would bind user space to it."""
    c, rust = pair
    assert set(rust.modes) - set(c.modes) == set()


@feature("configfs")
@smoke
def test_all_attributes_are_compared(pair: Pair) -> None:
    """The lists above have what the kernel's C driver has."""
    c, _ = pair
    assert set(c.modes) - set(ATTRIBUTES) == set(), "new attributes of the C driver: add them here"


@feature("module parameters")
@smoke
def test_module_parameters_are_the_same(pair: Pair) -> None:
    c, rust = pair
    missing = sorted(c.parameters - rust.parameters)
    extra = sorted(rust.parameters - c.parameters)
    assert not missing, f"the Rust driver has no {', '.join(missing)}"
    assert not extra, f"only the Rust driver has {', '.join(extra)}"
