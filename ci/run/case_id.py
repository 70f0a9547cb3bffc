# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of tests: as a run, its record and its lists have them, from what pytest collected."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.harness import requirements
from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.plugin import slot_of

UPSTREAM = PROJECT / "tests" / "blktests" / "test_blktests.py"


@dataclass(frozen=True)
class CaseId:
    """Names one test of a run."""

    __test__ = False

    suite: str
    name: str
    slot: Slot
    features: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """As in the record and in lists."""
        return f"{self.suite}/{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """As CaseResult.key: the same test in another run has the same."""
        return self.id, self.slot.topology

    def __str__(self) -> str:
        return f"{self.id}[{self.slot}]"


def test_id(item: pytest.Item) -> CaseId:
    """A collected item's name, its class in front; parameters of its own stand in parentheses."""
    slot = slot_of(item)
    assert isinstance(item, pytest.Function) and slot
    own = item.callspec.id.removeprefix(str(slot)).removesuffix(f"-{slot}").removeprefix("-")
    name = item.originalname.removeprefix("test_") + (f"({own})" if own else "")
    if item.cls is not None:
        name = f"{item.cls.__name__}.{name}"
    return CaseId(
        suite="blktests" if item.path == UPSTREAM else item.path.parent.name,
        name=own if item.path == UPSTREAM else name,
        slot=slot,
        features=requirements.features(item),
    )
