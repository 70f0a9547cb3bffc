# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of this driver only: it reads registers correctly and frees its resources."""

import re

import pytest

from blockyard.modules.binding import Binding
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import needs


@pytest.fixture
def binding(driver: Driver) -> Binding:
    """The driver's devices."""
    assert driver.binding is not None
    return driver.binding


@pytest.fixture
def log(driver: Driver, binding: Binding) -> str:
    """The kernel log of one unbind and one bind."""
    device = binding.devices()[0]
    driver.console.check("dmesg --clear")
    binding.unbind(device)
    binding.bind(device)
    return driver.console.check("dmesg --notime")


def test_unbind_frees_the_dma_memory(log: str) -> None:
    """Both messages are in the kernel log."""
    assert re.search(r"unbound, giving back 4096 bytes of DMA memory", log)
    assert re.search(r"bound, 4096 bytes of DMA memory", log)


@needs(program="nvme")
def test_registers_are_those_that_nvme_reads(driver: Driver, log: str) -> None:
    """nvme-cli reads the same registers when the C driver has the controller."""
    logged = re.search(r"VS (0x[0-9a-f]+)\), CAP (0x[0-9a-f]+)", log)
    assert logged, log
    driver.unload()
    wait = "wait_until 5 [ -e /dev/nvme0n1 ]"
    probe = (
        "for device in /sys/bus/pci/devices/*; do "
        "echo ${device##*/} > /sys/bus/pci/drivers_probe; done"
    )
    shown = driver.console.run(
        f"modprobe nvme; {probe}; {wait}; nvme show-regs /dev/nvme0", timeout_s=60
    ).output
    driver.console.run("modprobe --remove nvme", timeout_s=60)
    driver.load()
    values = {name: int(value, 16) for name, value in re.findall(r"(\w+)\s*: (\w+)", shown)}
    assert values["version"] == int(logged[1], 16)
    assert values["cap"] == int(logged[2], 16)


def test_bar_is_claimed_only_while_bound(driver: Driver, binding: Binding) -> None:
    """The resources in /proc/iomem name their driver."""
    device = binding.devices()[0]
    bound = driver.console.check("cat /proc/iomem")
    binding.unbind(device)
    unbound = driver.console.check("cat /proc/iomem")
    binding.bind(device)
    assert "rust_pci_nvme" in bound
    assert "rust_pci_nvme" not in unbound
