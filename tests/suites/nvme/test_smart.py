# SPDX-License-Identifier: GPL-2.0-or-later
"""SMART / Health Information (section 5.16.1.3): counters, temperature, warnings and events."""

from collections.abc import Iterator

import pytest

from blockyard.tests.harness.requirements import feature, needs, smoke
from blockyard.tests.lib.fio import fio
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("smart"), needs("nvme", program="nvme")]

TEMPERATURE_THRESHOLD = 4  # a feature (section 5.27.1.3), in kelvins
EVENTS = 11  # a feature: Asynchronous Event Configuration (section 5.27.1.8)
TEMPERATURE_WARNING = 2  # critical warning, bit 1
# Completion of an Asynchronous Event Request (section 5.2): health, temperature threshold, log 2
TEMPERATURE_EVENT = "0x020101"


def smart(nvme: Nvme) -> dict[str, int]:
    """The numeric fields of the SMART log."""
    log = nvme.query(f"smart-log {nvme.device()}")
    return {name: int(value) for name, value in log.items() if str(value).isdigit()}


def set_threshold(nvme: Nvme, kelvins: int) -> None:
    nvme.console.check(
        f"nvme set-feature {nvme.device()} --feature-id={TEMPERATURE_THRESHOLD} --value={kelvins}"
    )


@pytest.fixture
def cool(nvme: Nvme) -> Iterator[dict[str, int]]:
    """The SMART log of a controller below its threshold; the threshold is restored afterwards."""
    threshold = nvme.query(f"id-ctrl {nvme.device()}")["wctemp"]
    set_threshold(nvme, threshold)
    yield smart(nvme)
    set_threshold(nvme, threshold)


@needs(program="fio")
@pytest.mark.parametrize("direction", ["read", "write"])
@smoke
def test_smart_counts_commands_and_data(nvme: Nvme, direction: str) -> None:
    """One command per request; data counts in units of 1000 blocks of 512 bytes, rounded up."""
    before = smart(nvme)
    fio(nvme.disk(), rw=direction, bs="64k", size="4M", ioengine="psync")
    after = smart(nvme)
    commands = f"host_{direction}_commands"
    units = "data_units_written" if direction == "write" else "data_units_read"
    assert 64 <= after[commands] - before[commands] < 64 + 32, "more than other readers may add"
    assert 8 <= after[units] - before[units] <= 10
    assert after["critical_warning"] == 0


def test_temperatures_are_sensible(nvme: Nvme) -> None:
    """The temperature is below WCTEMP and CCTEMP, and there are no warnings or media errors."""
    health, identity = smart(nvme), nvme.query(f"id-ctrl {nvme.device()}")
    assert 273 < health["temperature"] < identity["wctemp"] < identity["cctemp"]
    assert health["critical_warning"] == health["media_errors"] == 0


def test_a_threshold_below_the_temperature_warns(nvme: Nvme, cool: dict[str, int]) -> None:
    set_threshold(nvme, cool["temperature"] - 10)
    assert smart(nvme)["critical_warning"] == TEMPERATURE_WARNING
    set_threshold(nvme, cool["temperature"] + 10)
    assert smart(nvme)["critical_warning"] == 0


@needs(program="udevadm")
def test_each_event_reaches_user_space(nvme: Nvme, cool: dict[str, int]) -> None:
    """An asynchronous event becomes a uevent, and the driver requests the next event.

    By default Linux enables namespace events only. An event is masked until its log page is read
    (section 5.2), which smart-log does.
    """
    output = nvme.console.check(f"nvme get-feature {nvme.device()} --feature-id={EVENTS}")
    enabled = int(output.rpartition("value:")[2], 16)
    watch = "udevadm monitor --kernel --property --subsystem-match=nvme"
    pid = nvme.console.check(f"{watch} > /tmp/uevents 2>&1 < /dev/null & echo $!").strip()
    try:
        _appears(nvme, "KERNEL - the kernel uevent", 1)
        _enable(nvme, enabled | TEMPERATURE_WARNING)
        for count in (1, 2, 3):
            set_threshold(nvme, cool["temperature"] - 10)
            _appears(nvme, f"NVME_AEN={TEMPERATURE_EVENT}", count)
            set_threshold(nvme, cool["temperature"] + 10)
            smart(nvme)
    finally:
        nvme.console.check(f"kill {pid}")
        _enable(nvme, enabled)


def _appears(nvme: Nvme, line: str, count: int) -> None:
    """Wait until udevadm has printed a line `count` times."""
    nvme.console.check(
        f"""
        seen() {{ [ "$(grep -cx '{line}' /tmp/uevents)" = {count} ]; }}
        wait_until 5 seen || {{ cat /tmp/uevents; exit 1; }}"""
    )


def _enable(nvme: Nvme, events: int) -> None:
    nvme.console.check(f"nvme set-feature {nvme.device()} --feature-id={EVENTS} --value={events}")
