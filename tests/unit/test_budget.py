# SPDX-License-Identifier: GPL-2.0-or-later
"""Budgets: how long loads run and how often steps are repeated."""

import pytest

from blockyard.ci.run.selection import budget_named
from blockyard.kernel.host.errors import UsageError
from blockyard.tests.harness.budget import NAMES, Budget, Name


def test_default_budget_changes_nothing() -> None:
    assert Budget().seconds(2.0) == 2.0
    assert Budget().times(12) == 12


def test_quick_is_shorter_and_long_is_longer() -> None:
    seconds = [Budget(name).seconds(1.0) for name in ("quick", "default", "long")]
    assert seconds == sorted(set(seconds))


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_done_at_least_once(name: Name) -> None:
    assert Budget(name).times(1) >= 1


def test_two_budgets_exclude_each_other() -> None:
    assert budget_named(quick=True, long=False) == "quick"
    assert budget_named(quick=False, long=False) == "default"
    with pytest.raises(UsageError, match="exclude"):
        budget_named(quick=True, long=True)
