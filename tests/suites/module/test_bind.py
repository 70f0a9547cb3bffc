# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver and its devices: bind, unbind, removal, handover to another driver and back."""

from collections.abc import Iterator

import pytest

from blockyard.modules.binding import Binding
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import needs, skip, smoke, waits

pytestmark = [needs("bind"), waits()]

CYCLES = 5


@pytest.fixture
def binding(driver: Driver) -> Binding:
    """The binding of the driver under test."""
    assert driver.binding is not None
    return driver.binding


@pytest.fixture
def competitor(driver: Driver, binding: Binding) -> Iterator[str]:
    """A module whose driver matches the same devices; unloaded afterwards if possible."""
    if not binding.table.competitors:
        pytest.skip(f"no other driver takes the devices of {driver.name}")
    module = binding.table.competitors[0]
    if driver.console.run(f"modprobe --dry-run -- {module}").exit_code:
        skip("kernel", f"the kernel has no {module}")
    yield module
    driver.console.run(f"modprobe --remove -- {module}", timeout_s=60)


def give(binding: Binding, devices: list[str], module: str) -> None:
    """Load another driver's module and let it probe unbound devices."""
    probes = "\n".join(f"echo {device} > {binding.bus}/drivers_probe" for device in devices)
    binding.console.check(f"modprobe -- {module}\n{probes}\ntrue", timeout_s=60)


@smoke
def test_loading_binds_the_devices(driver: Driver, binding: Binding) -> None:
    assert binding.devices(), f"{driver.name} is bound to no device"


@needs("module")
def test_unbind_and_bind(binding: Binding) -> None:
    device = binding.devices()[0]
    for _ in range(CYCLES):
        binding.unbind(device)
        assert not binding.owner(device)
        binding.bind(device)
        assert binding.owner(device)


@needs("module")
@smoke
def test_unloading_frees_the_devices(driver: Driver, binding: Binding) -> None:
    devices = binding.devices()
    driver.unload()
    owners = [binding.owner(device) for device in devices]
    driver.load()
    assert not any(owners), f"still bound after unloading: {owners}"
    assert binding.devices() == devices


@needs("module")
def test_device_is_handed_over_and_back(driver: Driver, binding: Binding, competitor: str) -> None:
    """The other driver works with the device, and this one gets it back."""
    devices = binding.devices()
    driver.unload()
    give(binding, devices, competitor)
    others = [binding.owner(device) for device in devices]
    if not binding.table.driver_override:
        driver.console.check(f"modprobe --remove -- {competitor}", timeout_s=60)
    driver.load()
    assert others == [competitor] * len(devices)
    assert binding.devices() == devices


@needs("module")
def test_a_bound_competitor_keeps_its_device(
    driver: Driver, binding: Binding, competitor: str
) -> None:
    """Loading a driver does not unbind another one; that needs driver_override."""
    devices = binding.devices()
    driver.unload()
    give(binding, devices, competitor)
    modules = " ".join(driver.manifest.modules)
    driver.console.check(f"modprobe --all -- {modules}")
    others = [binding.owner(device) for device in devices]
    driver.console.check(f"modprobe --remove -- {modules}")
    driver.load()
    assert others == [competitor] * len(devices)


@needs("module")
def test_device_is_removed_while_bound(driver: Driver, binding: Binding) -> None:
    device, bus = binding.devices()[0], binding.bus
    removed = driver.console.run(
        f"""
        echo 1 > {bus}/devices/{device}/remove || exit
        [ ! -e {bus}/devices/{device} ]
        gone=$?
        echo 1 > {bus}/rescan
        exit $gone"""
    )
    driver.load()
    assert removed.exit_code == 0, f"{device} is still there: {removed.output}"
    assert device in binding.devices()
