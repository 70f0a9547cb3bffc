# SPDX-License-Identifier: GPL-2.0-or-later
"""Portions: the tests that a pytest-xdist worker runs in a row.

A portion is a part of one slot's tests: large enough to be worth a boot, and small enough for the
workers to finish together. pytest-xdist's `--dist loadgroup` cannot do this, see
docs/dependencies.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest

PORTION = 20  # tests; a boot takes as long as three or four of them


class Portions:
    """Assigns tests to portions, in the order of the calls of `of`."""

    def __init__(self, slots: Iterable[str]) -> None:
        longest_first = sorted(slots, key=len, reverse=True)
        words = "|".join(map(re.escape, longest_first))
        self._slot = re.compile(rf"(?:\[|-)({words})(?=-|\]$)") if words else None
        self._counts: Counter[str] = Counter()
        self._found: dict[str, str] = {}

    def of(self, nodeid: str) -> str:
        """The portion of a test by its pytest id, which contains its slot.

        Ordinary tests, which have no slot, share portions.
        """
        if nodeid not in self._found:
            match = self._slot.search(nodeid) if self._slot else None
            slot = match[1] if match else ""
            self._found[nodeid] = f"{slot}#{self._counts[slot] // PORTION}"
            self._counts[slot] += 1
        return self._found[nodeid]


def scheduler(config: pytest.Config, log: Any, portions: Portions) -> Any:
    """A pytest-xdist scheduler that sends whole portions to workers; its types are xdist's."""
    from xdist.scheduler import LoadScopeScheduling

    class ByPortion(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return portions.of(nodeid)

    return ByPortion(config, log)
