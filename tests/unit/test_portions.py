# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests a worker runs in a row, and the outcome of known failures."""

from __future__ import annotations

from collections import Counter

from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.collection import portion_count
from blockyard.ci.run.verdicts import Collector
from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.known import Known, KnownFailure
from blockyard.tests.harness.portions import PORTION, Portions
from blockyard.tests.unit.test_outcomes import report

NVME, ZNS = Slot("nvme", "serial"), Slot("nvme", "serial", "zns")


def names(slot: Slot, count: int) -> dict[str, CaseId]:
    return {f"{slot}::{number}": CaseId("s", str(number), slot) for number in range(count)}


def test_portion_has_one_slot_and_a_maximum_size() -> None:
    tests = [f"t.py::t[nvme-serial-{number}]" for number in range(PORTION + 1)]
    tests += [f"t.py::T::t[{number}-nvme-serial-zns]" for number in range(3)]
    portions = Portions(["nvme-serial", "nvme-serial-zns", "nvme-ssh"])
    sizes = Counter(portions.of(test) for test in [*tests, "t.py::plain", "t.py::t[nvme-serialx]"])
    assert sizes == {"nvme-serial#0": PORTION, "nvme-serial#1": 1, "nvme-serial-zns#0": 3, "#0": 2}
    assert portions.of(tests[0]) == "nvme-serial#0"
    assert portion_count(names(NVME, PORTION + 1) | names(ZNS, 3)) == 3


def test_slot_name_includes_the_topology() -> None:
    assert (str(NVME), str(ZNS)) == ("nvme-serial", "nvme-serial-zns")


def test_known_failure_starts_with_the_known_reason() -> None:
    entry = KnownFailure("s/0", "too slow", driver="nvme", link="commit 1234")
    collector = Collector(names(NVME, 2), Known((entry,), "7.3.4", "plain"))
    for name in collector.names:
        collector.pytest_runtest_logreport(
            report(name, "call", failed=True, facts={"outcome": "fail", "reason": "1 != 2"})
        )
        collector.pytest_runtest_logreport(report(name, "teardown"))
    known, unknown = collector.results
    assert (known.outcome, known.reason) == ("xfail", "too slow (commit 1234)\n1 != 2")
    assert (unknown.outcome, unknown.reason) == ("fail", "1 != 2")


def test_known_failure_that_passes_is_xpass() -> None:
    entry = KnownFailure("s/*", "too slow")
    collector = Collector(names(NVME, 1), Known((entry,), "7.3.4", "plain"))
    (name,) = collector.names
    collector.pytest_runtest_logreport(report(name, "call"))
    collector.pytest_runtest_logreport(report(name, "teardown"))
    (result,) = collector.results
    assert (result.outcome, result.reason) == ("xpass", "expected to fail: too slow")
