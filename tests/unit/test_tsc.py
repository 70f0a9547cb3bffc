# SPDX-License-Identifier: GPL-2.0-or-later
"""The TSC rate that one emulated guest measures is passed to the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.images.machine import tsc

HZ = {"HZ": "250"}
LOG = """\
[    0.000000] tsc: Fast TSC calibration using PIT
[    0.000000] tsc: Detected 2599.996 MHz processor
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.log"
    path.write_text(LOG)
    return path


def test_first_guest_measures() -> None:
    assert tsc.loops_per_jiffy("tcg", HZ) == 0


def test_next_guest_gets_loops_per_jiffy(log: Path) -> None:
    """The kernel prints the same value for this rate: lpj=10399984."""
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", HZ) == 10399984
    assert tsc.loops_per_jiffy("tcg", {"HZ": "1000"}) == 2599996


def test_kvm_guests_get_no_value(log: Path) -> None:
    tsc.note(log)
    assert tsc.loops_per_jiffy("kvm", HZ) == 0


def test_first_measurement_is_kept(log: Path) -> None:
    tsc.note(log)
    log.write_text(LOG.replace("2599", "1300"))
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", HZ) == 10399984


def test_failed_calibration_is_not_recorded(log: Path) -> None:
    log.write_text("[    0.000000] tsc: Unable to calibrate against PIT\n")
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", HZ) == 0


@pytest.mark.parametrize("text", ["", "fast"])
def test_broken_record_is_ignored(log: Path, text: str) -> None:
    tsc.note(log)
    tsc._record().write_text(text)
    assert tsc.loops_per_jiffy("tcg", HZ) == 0


def test_config_without_hz_gets_no_value(log: Path) -> None:
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", {}) == 0
