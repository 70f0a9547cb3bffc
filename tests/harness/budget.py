# SPDX-License-Identifier: GPL-2.0-or-later
"""How much time a run spends on what could go on for ever: load, races, repetitions.

A test says what it takes by default; `--quick` and `--long` stretch that. Correctness is never a
matter of the budget: the same tests run, only shorter or longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Name = Literal["quick", "default", "long"]
NAMES: tuple[Name, ...] = get_args(Name)
_FACTORS: dict[Name, float] = {"quick": 0.25, "default": 1.0, "long": 10.0}


@dataclass(frozen=True)
class Budget:
    """What a run may spend."""

    name: Name = "default"

    def seconds(self, default: float) -> float:
        """How long a load runs that runs `default` seconds by default."""
        return default * _FACTORS[self.name]

    def times(self, default: int) -> int:
        """How often something is repeated that is repeated `default` times by default."""
        return max(1, round(default * _FACTORS[self.name]))
