# SPDX-License-Identifier: GPL-2.0-or-later
"""Power states: the controller's own, and those of its PCI function."""

from blockyard.modules.disk import write_file
from blockyard.tests.harness.requirements import feature, needs, waits
from blockyard.tests.lib.fio import fio
from blockyard.tests.lib.nvme import NOT_CHANGEABLE, Nvme

pytestmark = [feature("power-states"), needs("nvme", program="nvme"), waits()]

POWER_MANAGEMENT = 2  # a feature (section 5.27.1.2)
DRIVER = "/sys/bus/pci/drivers/nvme"


def state(nvme: Nvme) -> int:
    """The power state that the controller says it is in."""
    told = nvme.console.check(f"nvme get-feature {nvme.device()} --feature-id={POWER_MANAGEMENT}")
    return int(told.rpartition("value:")[2], 16) & 0x1F


def test_power_states_are_described(nvme: Nvme) -> None:
    """As many as NPSS says (0's based), the first the most powerful; it is in one of them."""
    told = nvme.query(f"id-ctrl {nvme.device()}")
    states = told["psds"]
    assert len(states) == told["npss"] + 1
    watts = [one["max_power"] for one in states]
    assert watts == sorted(watts, reverse=True) and watts[0] > 0
    assert state(nvme) <= told["npss"]


def test_unknown_power_state_is_refused(nvme: Nvme) -> None:
    """QEMU's controller has one state and refuses to change it; it goes on working."""
    told = nvme.query(f"id-ctrl {nvme.device()}")
    more = told["npss"] + 1
    refused = nvme.status(
        f"set-feature {nvme.device()} --feature-id={POWER_MANAGEMENT} --value={more}"
    )
    assert refused == NOT_CHANGEABLE
    assert state(nvme) < more
    assert fio(nvme.disk(), rw="read", bs="64k", size="256k", ioengine="psync").read_bytes


def test_bound_function_is_in_d0(nvme: Nvme) -> None:
    """D0, memory and bus mastering on (PCI command register), for as long as it has a driver."""
    function = nvme.function()
    name = function.rpartition("/")[2]
    config = f"od --address-radix=n --format=x2 --skip-bytes=4 --read-bytes=2 {function}/config"
    assert nvme.read(f"{function}/power_state") == "D0"
    assert int(nvme.console.check(config), 16) & 6 == 6
    assert write_file(nvme.console, f"{DRIVER}/unbind", name) == 0
    try:
        assert int(nvme.console.check(config), 16) & 4 == 0, "it may still write to memory"
    finally:
        assert write_file(nvme.console, f"{DRIVER}/bind", name) == 0
        nvme.settle()
