# SPDX-License-Identifier: GPL-2.0-or-later
"""A Rust driver compared with its C counterpart: differences that user space can see.

A feature that the Rust driver lacks is a skip that names it; one that behaves differently is a
failure that says how. Known differences are listed in tests/known_failures.toml.
"""

import pytest

from blockyard.modules.driver import Driver
from blockyard.tests.harness.guests import Guest
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib import abi
from blockyard.tests.lib.abi import Surface
from blockyard.tests.lib.null_blk import ATTRIBUTES

pytestmark = needs("configfs", "counterpart")

# Queue attributes up to Linux 7.3; `all_queue_attributes_are_compared` fails for newer ones.
QUEUE = (
    "add_random",
    "async_depth",
    "atomic_write_boundary_bytes",
    "atomic_write_max_bytes",
    "atomic_write_unit_max_bytes",
    "atomic_write_unit_min_bytes",
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
    "io_timeout",
    "iostats",
    "iostats_passthrough",
    "logical_block_size",
    "max_active_zones",
    "max_discard_segments",
    "max_hw_sectors_kb",
    "max_integrity_segments",
    "max_open_zones",
    "max_sectors_kb",
    "max_segment_size",
    "max_segments",
    "max_write_streams",
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
    "wbt_lat_usec",
    "write_cache",
    "write_same_max_bytes",
    "write_stream_granularity",
    "write_zeroes_max_bytes",
    "write_zeroes_unmap_max_bytes",
    "write_zeroes_unmap_max_hw_bytes",
    "zone_append_max_bytes",
    "zone_write_granularity",
    "zoned",
    "zoned_qd1_writes",
)
# A driver may have no time-out; a scheduler that is set from the start has a folder.
OPTIONAL_FILES = {"queue/io_timeout", "queue/iosched"}

Pair = tuple[Surface, Surface]


@pytest.fixture
def pair(guest: Guest, driver: Driver) -> Pair:
    """The surfaces of the C driver and of the Rust driver under test."""
    if driver.manifest.counterpart not in guest.surfaces:
        with abi.counterpart(driver) as other:
            guest.surfaces[driver.manifest.counterpart] = abi.read(other)
        guest.surfaces[driver.name] = abi.read(driver)
    return guest.surfaces[driver.manifest.counterpart], guest.surfaces[driver.name]


def in_both(pair: Pair, driver: Driver, attribute: str) -> None:
    """Skip the test unless both drivers have the attribute."""
    c, rust = pair
    if attribute not in c.modes:
        skip("kernel", f"{driver.manifest.counterpart} has no attribute {attribute} in this kernel")
    if attribute not in rust.modes:
        skip("driver", f"{driver.name} has no attribute {attribute}", f"attribute:{attribute}")


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_permissions_are_the_same(pair: Pair, driver: Driver, attribute: str) -> None:
    in_both(pair, driver, attribute)
    c, rust = pair
    assert rust.modes[attribute] == c.modes[attribute]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_defaults_are_the_same(pair: Pair, driver: Driver, attribute: str) -> None:
    in_both(pair, driver, attribute)
    c, rust = pair
    message = f"C {c.defaults[attribute]}, Rust {rust.defaults[attribute]}"
    assert rust.defaults[attribute] == c.defaults[attribute], message


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_values_get_the_same_answer(pair: Pair, driver: Driver, attribute: str) -> None:
    """Both accept and refuse the same values, with the same errors, and read back the same."""
    in_both(pair, driver, attribute)
    if "w" not in pair[0].modes[attribute]:
        pytest.skip(f"{attribute} cannot be written")
    c, rust = (surface.answers[attribute] for surface in pair)
    differences = [
        f"{value!r}: C {abi.describe(c[value])}, Rust {abi.describe(rust[value])}"
        for value in abi.VALUES
        if abi.describe(c[value]) != abi.describe(rust[value])
    ]
    assert not differences, "; ".join(differences)


@pytest.mark.parametrize("attribute", QUEUE)
@feature("queue limits")
def test_queue_attributes_are_the_same(pair: Pair, driver: Driver, attribute: str) -> None:
    """The disks compared have the same size, block size and irqmode."""
    c, rust = (surface.queue.get(attribute) for surface in pair)
    if c is None and rust is None:
        skip("kernel", f"this kernel has no queue attribute {attribute}")
    assert rust == c, f"C {c}, Rust {rust}"


@feature("sysfs files")
@smoke
def test_sysfs_has_the_same_files(pair: Pair) -> None:
    c, rust = (surface.files - OPTIONAL_FILES for surface in pair)
    assert rust == c, f"only C: {sorted(c - rust)}, only Rust: {sorted(rust - c)}"


@feature("sysfs files")
def test_sysfs_has_the_same_optional_files(pair: Pair) -> None:
    c, rust = (surface.files & OPTIONAL_FILES for surface in pair)
    assert rust == c, f"C {sorted(c)}, Rust {sorted(rust)}"


@feature("configfs")
@smoke
def test_rust_driver_adds_no_attributes(pair: Pair) -> None:
    """User space must not depend on attributes that only the Rust driver has."""
    c, rust = pair
    assert set(rust.modes) - set(c.modes) == set()


@feature("configfs")
@smoke
def test_all_attributes_are_compared(pair: Pair) -> None:
    """ATTRIBUTES names every attribute of this kernel's C driver."""
    c, _ = pair
    assert set(c.modes) - set(ATTRIBUTES) == set(), "add new attributes to ATTRIBUTES"


@feature("queue limits")
def test_all_queue_attributes_are_compared(pair: Pair) -> None:
    """QUEUE names every queue attribute of this kernel."""
    c, rust = pair
    assert (set(c.queue) | set(rust.queue)) - set(QUEUE) == set(), "add new attributes to QUEUE"


@feature("module parameters")
@smoke
def test_module_parameters_are_the_same(pair: Pair) -> None:
    c, rust = pair
    missing = sorted(c.parameters - rust.parameters)
    extra = sorted(rust.parameters - c.parameters)
    assert not missing, f"the Rust driver has no {', '.join(missing)}"
    assert not extra, f"only the Rust driver has {', '.join(extra)}"
