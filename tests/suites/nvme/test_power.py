# SPDX-License-Identifier: GPL-2.0-or-later
"""Power states of the controller and of its PCI function."""

from blockyard.modules.disk import write_file
from blockyard.tests.harness.requirements import feature, needs, waits
from blockyard.tests.lib.fio import fio
from blockyard.tests.lib.nvme import NOT_CHANGEABLE, Nvme

pytestmark = [feature("power-states"), needs("nvme", program="nvme"), waits()]

POWER_MANAGEMENT = 2  # a feature (section 5.27.1.2)
DRIVER = "/sys/bus/pci/drivers/nvme"


def state(nvme: Nvme) -> int:
    """The number of the controller's current power state."""
    output = nvme.console.check(f"nvme get-feature {nvme.device()} --feature-id={POWER_MANAGEMENT}")
    return int(output.rpartition("value:")[2], 16) & 0x1F


def test_power_states_are_described(nvme: Nvme) -> None:
    """There are NPSS states (0's based), the first uses the most power; one of them is current."""
    identity = nvme.query(f"id-ctrl {nvme.device()}")
    states = identity["psds"]
    assert len(states) == identity["npss"] + 1
    watts = [entry["max_power"] for entry in states]
    assert watts == sorted(watts, reverse=True) and watts[0] > 0
    assert state(nvme) <= identity["npss"]


def test_unknown_power_state_is_refused(nvme: Nvme) -> None:
    """QEMU's controller has one state and refuses to change it; it keeps working."""
    identity = nvme.query(f"id-ctrl {nvme.device()}")
    unknown = identity["npss"] + 1
    refused = nvme.status(
        f"set-feature {nvme.device()} --feature-id={POWER_MANAGEMENT} --value={unknown}"
    )
    assert refused == NOT_CHANGEABLE
    assert state(nvme) < unknown
    assert fio(nvme.disk(), rw="read", bs="64k", size="256k", ioengine="psync").read_bytes


def test_bound_function_is_in_d0(nvme: Nvme) -> None:
    """While a driver is bound, memory space and bus mastering are on (PCI command register)."""
    function = nvme.function()
    name = function.rpartition("/")[2]
    config = f"od --address-radix=n --format=x2 --skip-bytes=4 --read-bytes=2 {function}/config"
    assert nvme.read(f"{function}/power_state") == "D0"
    assert int(nvme.console.check(config), 16) & 6 == 6
    assert write_file(nvme.console, f"{DRIVER}/unbind", name) == 0
    try:
        assert int(nvme.console.check(config), 16) & 4 == 0, "bus mastering is still on"
    finally:
        assert write_file(nvme.console, f"{DRIVER}/bind", name) == 0
        nvme.settle()
