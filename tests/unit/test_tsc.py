# SPDX-License-Identifier: GPL-2.0-or-later
"""What one emulated guest found of its clock, and what the next is told."""

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


def test_the_first_guest_measures() -> None:
    assert tsc.loops_per_jiffy("tcg", HZ) == 0


def test_the_next_is_told(log: Path) -> None:
    """As the kernel itself says with this rate: lpj=10399984."""
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", HZ) == 10399984
    assert tsc.loops_per_jiffy("tcg", {"HZ": "1000"}) == 2599996


def test_under_kvm_the_kernel_knows(log: Path) -> None:
    tsc.note(log)
    assert tsc.loops_per_jiffy("kvm", HZ) == 0


def test_the_first_word_stands(log: Path) -> None:
    tsc.note(log)
    log.write_text(LOG.replace("2599", "1300"))
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", HZ) == 10399984


def test_a_kernel_that_found_nothing(log: Path) -> None:
    log.write_text("[    0.000000] tsc: Unable to calibrate against PIT\n")
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", HZ) == 0


@pytest.mark.parametrize("text", ["", "fast"])
def test_a_record_that_is_broken(log: Path, text: str) -> None:
    tsc.note(log)
    tsc._record().write_text(text)
    assert tsc.loops_per_jiffy("tcg", HZ) == 0


def test_a_configuration_without_a_tick(log: Path) -> None:
    tsc.note(log)
    assert tsc.loops_per_jiffy("tcg", {}) == 0
