# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a run spends on load, races and repetitions, which have no end of their own.

A test gives its default; `--quick` and `--long` scale it. All budgets run the same tests and make
the same assertions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Name = Literal["quick", "default", "long"]
NAMES: tuple[Name, ...] = get_args(Name)
_FACTORS: dict[Name, float] = {"quick": 0.25, "default": 1.0, "long": 10.0}


@dataclass(frozen=True)
class Budget:
    """Scales durations and repetitions of tests."""

    name: Name = "default"

    def seconds(self, default: float) -> float:
        """The duration of a load in seconds; default: with the budget `default`."""
        return default * _FACTORS[self.name]

    def times(self, default: int) -> int:
        """The number of repetitions, at least 1; default: with the budget `default`."""
        return max(1, round(default * _FACTORS[self.name]))
