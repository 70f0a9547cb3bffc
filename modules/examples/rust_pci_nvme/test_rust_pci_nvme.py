# SPDX-License-Identifier: GPL-2.0-or-later
"""What this driver alone promises: it reads the controller right and gives back what it took."""

import re

import pytest

from blockyard.modules.binding import Binding
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import needs


@pytest.fixture
def binding(driver: Driver) -> Binding:
    """The controllers."""
    assert driver.binding is not None
    return driver.binding


@pytest.fixture
def log(driver: Driver, binding: Binding) -> str:
    """What the kernel log says of one bind and one unbind."""
    device = binding.devices()[0]
    driver.console.check("dmesg --clear")
    binding.unbind(device)
    binding.bind(device)
    return driver.console.check("dmesg --notime")


def test_the_log_tells_of_both(log: str) -> None:
    """What was allocated is given back."""
    assert re.search(r"unbound, giving back 4096 bytes of DMA memory", log)
    assert re.search(r"bound, 4096 bytes of DMA memory", log)


@needs(program="nvme")
def test_registers_are_those_that_nvme_reads(driver: Driver, log: str) -> None:
    """nvme-cli maps the same registers once the C driver has the controller."""
    told = re.search(r"VS (0x[0-9a-f]+)\), CAP (0x[0-9a-f]+)", log)
    assert told, log
    driver.unload()
    wait = "wait_until 5 [ -e /dev/nvme0n1 ]"
    probe = (
        "for one in /sys/bus/pci/devices/*; do echo ${one##*/} > /sys/bus/pci/drivers_probe; done"
    )
    shown = driver.console.run(
        f"modprobe nvme; {probe}; {wait}; nvme show-regs /dev/nvme0", timeout_s=60
    ).output
    driver.console.run("modprobe --remove nvme", timeout_s=60)
    driver.load()
    values = {name: int(value, 16) for name, value in re.findall(r"(\w+)\s*: (\w+)", shown)}
    assert values["version"] == int(told[1], 16)
    assert values["cap"] == int(told[2], 16)


def test_the_bar_is_taken_while_bound(driver: Driver, binding: Binding) -> None:
    """And nobody has it afterwards."""
    device = binding.devices()[0]
    taken = driver.console.check("cat /proc/iomem")
    binding.unbind(device)
    freed = driver.console.check("cat /proc/iomem")
    binding.bind(device)
    assert "rust_pci_nvme" in taken
    assert "rust_pci_nvme" not in freed
