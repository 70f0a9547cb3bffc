# SPDX-License-Identifier: GPL-2.0-or-later
"""Power states: the controller's own, and those of its PCI function."""

import pytest

from modules.disk import write_file
from tests.needs import feature, needs
from tests.nvme import NOT_CHANGEABLE, Nvme
from tests.workload import background_io, fio

pytestmark = [feature("power-states"), needs("nvme", program="nvme")]

POWER_MANAGEMENT = 2  # a feature (section 5.27.1.2)
DRIVER = "/sys/bus/pci/drivers/nvme"


def state(nvme: Nvme) -> int:
    """The power state that the controller says it is in."""
    told = nvme.console.check(f"nvme get-feature {nvme.device()} --feature-id={POWER_MANAGEMENT}")
    return int(told.rpartition("value:")[2], 16) & 0x1F


def test_power_states_are_described(nvme: Nvme) -> None:
    """As many as NPSS says (0's based), the first the most powerful; it is in one of them."""
    told = nvme.told(f"id-ctrl {nvme.device()}")
    states = told["psds"]
    assert len(states) == told["npss"] + 1
    watts = [one["max_power"] for one in states]
    assert watts == sorted(watts, reverse=True) and watts[0] > 0
    assert state(nvme) <= told["npss"]


def test_a_power_state_that_is_not_there_is_refused(nvme: Nvme) -> None:
    """QEMU's controller has one state and refuses to change it; it goes on working."""
    told = nvme.told(f"id-ctrl {nvme.device()}")
    more = told["npss"] + 1
    refused = nvme.status(
        f"set-feature {nvme.device()} --feature-id={POWER_MANAGEMENT} --value={more}"
    )
    assert refused == NOT_CHANGEABLE
    assert state(nvme) < more
    assert fio(nvme.disk(), rw="read", bs="64k", size="256k", ioengine="psync").read_bytes


def test_a_bound_function_is_awake(nvme: Nvme) -> None:
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


@needs(symbol="SUSPEND", program="rtcwake")
def test_the_guest_sleeps_under_io(nvme: Nvme) -> None:
    """Suspend to idle for a second: requests wait, the controller is shut down and set up again."""
    if nvme.console.run("[ -e /dev/rtc0 ] && grep --quiet freeze /sys/power/state").exit_code:
        pytest.skip("this guest cannot sleep and be woken")
    with background_io(nvme.disk()):
        told = nvme.console.run("rtcwake --mode freeze --seconds 1", timeout_s=30)
        assert told.exit_code == 0, told.output
    assert nvme.live()
