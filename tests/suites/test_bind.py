# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver and its devices: bound, taken away, handed over to another driver and back."""

from collections.abc import Iterator

import pytest

from modules.driver import Driver
from tests.needs import needs

pytestmark = needs("bind")

CYCLES = 5


@pytest.fixture
def competitor(driver: Driver) -> Iterator[str]:
    """A module whose driver matches the same devices; unloaded again afterwards if it can be."""
    bind = driver.manifest.bind
    assert bind is not None
    if not bind.competitors:
        pytest.skip(f"{driver.name} has its devices for itself")
    module = bind.competitors[0]
    if driver.console.run(f"modprobe --dry-run -- {module}").exit_code:
        pytest.skip(f"the kernel has no {module}")
    yield module
    driver.console.run(f"modprobe --remove -- {module}", timeout_s=60)


def owner(driver: Driver, device: str) -> str:
    """The driver that a device is bound to; empty when there is none."""
    bind = driver.manifest.bind
    assert bind is not None
    link = driver.console.run(f"readlink /sys/bus/{bind.bus}/devices/{device}/driver").output
    return link.strip().rpartition("/")[2]


def give(driver: Driver, devices: list[str], module: str) -> None:
    """Loads another driver's module and has it look at devices that are free."""
    bind = driver.manifest.bind
    assert bind is not None
    probes = "\n".join(f"echo {one} > /sys/bus/{bind.bus}/drivers_probe" for one in devices)
    driver.console.check(f"modprobe -- {module}\n{probes}\ntrue", timeout_s=60)


def test_loading_binds(driver: Driver) -> None:
    assert driver.devices(), f"{driver.name} is bound to nothing"


@needs("module")
def test_unbind_and_bind(driver: Driver) -> None:
    device = driver.devices()[0]
    for _ in range(CYCLES):
        driver.unbind(device)
        assert not owner(driver, device)
        driver.bind(device)
        assert owner(driver, device)


@needs("module")
def test_unloading_frees_the_devices(driver: Driver) -> None:
    devices = driver.devices()
    driver.unload()
    owners = [owner(driver, device) for device in devices]
    driver.load()
    assert not any(owners), f"still bound after unloading: {owners}"
    assert driver.devices() == devices


@needs("module")
def test_handed_over_and_back(driver: Driver, competitor: str) -> None:
    """The other driver works with the device, and this one gets it back."""
    bind = driver.manifest.bind
    assert bind is not None
    devices = driver.devices()
    driver.unload()
    give(driver, devices, competitor)
    others = [owner(driver, device) for device in devices]
    if not bind.driver_override:
        driver.console.check(f"modprobe --remove -- {competitor}", timeout_s=60)
    driver.load()
    assert others == [competitor] * len(devices)
    assert driver.devices() == devices


@needs("module")
def test_a_bound_competitor_keeps_its_device(driver: Driver, competitor: str) -> None:
    """Loading alone takes nothing from a driver that is there; that needs an override."""
    devices = driver.devices()
    driver.unload()
    give(driver, devices, competitor)
    modules = " ".join(driver.manifest.modules)
    driver.console.check(f"modprobe --all -- {modules}")
    others = [owner(driver, device) for device in devices]
    driver.console.check(f"modprobe --remove -- {modules}")
    driver.load()
    assert others == [competitor] * len(devices)


@needs("module")
def test_device_removed_while_bound(driver: Driver) -> None:
    bind = driver.manifest.bind
    assert bind is not None
    device = driver.devices()[0]
    folder = f"/sys/bus/{bind.bus}"
    driver.console.check(f"echo 1 > {folder}/devices/{device}/remove; echo 1 > {folder}/rescan")
    gone = owner(driver, device)
    driver.load()
    assert gone in ("", bind.driver, *bind.competitors)
    assert device in driver.devices()
