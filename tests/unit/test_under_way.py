# SPDX-License-Identifier: GPL-2.0-or-later
"""Long tests are named while they run."""

from __future__ import annotations

import time

import pytest

from blockyard.ci.run.under_way import RunningTests


def test_long_test_is_named_at_growing_intervals(capfd: pytest.CaptureFixture[str]) -> None:
    with RunningTests(long_s=0.2) as under_way:
        under_way.start("io/slow[x]")
        under_way.start("io/quick[x]")
        under_way.finish("io/quick[x]")
        time.sleep(1.1)  # named after 0.2, 0.4 and 0.8 s
        assert under_way.names() == ("io/slow[x]",)
    err = capfd.readouterr().err
    assert 2 <= err.count("still running: io/slow[x], for ") <= 3
    assert "quick" not in err


def test_without_a_context_tests_are_only_counted() -> None:
    under_way = RunningTests()
    under_way.start("a")
    under_way.start("b")
    under_way.finish("a")
    under_way.finish("never started")
    assert under_way.names() == ("b",)
