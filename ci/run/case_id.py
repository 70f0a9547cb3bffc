# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of tests in runs, records and lists, from the items that pytest collected."""

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
    """Identifies a test of a run."""

    __test__ = False

    suite: str
    name: str
    slot: Slot
    features: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """`suite/name`, as in the record and in lists."""
        return f"{self.suite}/{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the test of a driver in any run, as CaseResult.key."""
        return self.id, self.slot.topology

    def __str__(self) -> str:
        return f"{self.id}[{self.slot}]"


def test_id(item: pytest.Item) -> CaseId:
    """The id of a collected item: class, function, and its own parameters in parentheses."""
    slot = slot_of(item)
    assert isinstance(item, pytest.Function) and slot
    parameters = item.callspec.id.removeprefix(str(slot)).removesuffix(f"-{slot}").removeprefix("-")
    name = item.originalname.removeprefix("test_") + (f"({parameters})" if parameters else "")
    if item.cls is not None:
        name = f"{item.cls.__name__}.{name}"
    return CaseId(
        suite="blktests" if item.path == UPSTREAM else item.path.parent.name,
        name=parameters if item.path == UPSTREAM else name,
        slot=slot,
        features=requirements.features(item),
    )
