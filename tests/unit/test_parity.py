# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a feature, by what became of its tests."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import record
from blockyard.ci.studies import parity
from blockyard.ci.studies.parity import Cell, State, cell, pair, recorded, rust_drivers
from blockyard.kernel.host.errors import UsageError
from blockyard.tests.harness.outcomes import CaseResult, Lacking, Outcome
from blockyard.tests.unit.samples import result, run_of


def test_of(
    outcome: Outcome,
    feature: str = "size",
    driver: str = "rnull",
    *,
    name: str = "null_blk/x",
    reason: str = "",
    lacking: Lacking = "driver",
) -> CaseResult:
    plain = result(outcome, name, driver, reason=reason, lacking=lacking)
    return msgspec.structs.replace(plain, features=(feature,))


test_of.__test__ = False  # type: ignore[attr-defined]  # for pytest: a helper


class TestCell:
    @pytest.mark.parametrize(
        ("tests", "state"),
        [
            ([test_of("pass")], "supported"),
            ([test_of("xpass")], "supported"),
            ([test_of("pass"), test_of("skip", reason="rnull has no attribute x")], "supported"),
            ([test_of("pass"), test_of("fail", reason="no")], "broken"),
            ([test_of("pass"), test_of("xfail", reason="known")], "broken"),
            ([test_of("pass"), test_of("lost", reason="died")], "broken"),
            ([test_of("pass"), test_of("xfail", name="abi/x", reason="C 1, Rust 2")], "differs"),
            ([test_of("fail"), test_of("fail", name="abi/x")], "broken"),
            ([test_of("skip", reason="rnull has no attribute size")], "missing"),
            ([test_of("skip", reason="no such thing", lacking="kernel")], "untested"),
            ([test_of("skip", reason="rnull is built in", lacking="kernel")], "untested"),
            ([test_of("skip", reason="rnull is not meant", lacking="test")], "untested"),
            ([], "untested"),
        ],
    )
    def test_by_outcomes(self, tests: list[CaseResult], state: State) -> None:
        assert cell(tests).state == state

    def test_it_says_how(self) -> None:
        tests = [test_of("xfail", name="abi/x", reason="known: C 1, Rust 2\nassert 1 == 2")]
        assert cell(tests) == Cell("differs", 1, ("known: C 1, Rust 2: assert 1 == 2",))


class TestPair:
    RUN = run_of(
        test_of("pass", "size", "null_blk"),
        test_of("pass", "size"),
        test_of("pass", "zoned", "null_blk"),
        test_of("skip", "zoned", reason="rnull has no attribute zoned"),
        test_of("skip", "zoned", reason="rnull has no attribute zoned"),
        test_of("pass", "mbps", "null_blk"),
        test_of("skip", "mbps", reason="rnull has no attribute mbps"),
        test_of("skip", "smart", "null_blk", reason="null_blk is no NVMe driver"),
        test_of("skip", "smart", reason="rnull is no NVMe driver"),
        test_of("pass", "size", "nvme"),
    )

    def test_what_neither_has_is_left_out(self) -> None:
        found = pair(self.RUN, Path("results/r/run.json"), "rnull")
        assert list(found.features) == ["mbps", "size", "zoned"]
        assert found.record == "r"
        assert found.counts("rnull") == {"missing": 2, "supported": 1}

    def test_what_most_tests_wait_for_comes_first(self) -> None:
        found = pair(self.RUN, Path("r/run.json"), "rnull")
        assert list(found.missing().items()) == [("zoned", 2), ("mbps", 1)]
        assert "zoned (2 tests), mbps (1 tests)" in parity.summary(found)

    def test_the_page_has_the_table_and_the_differences(self) -> None:
        run = run_of(
            test_of("pass", "size", "null_blk"),
            test_of("xfail", "size", name="abi/defaults(size)", reason="4 GiB"),
        )
        text = parity.page([pair(run, Path("r/run.json"), "rnull")])
        assert "| size | supported | differs |" in text
        assert "- size: 4 GiB" in text


class TestRecorded:
    def test_a_run_of_one_driver_is_refused(self, tmp_path: Path) -> None:
        path = record.write(run_of(test_of("pass")), tmp_path)
        with pytest.raises(UsageError, match="no tests of null_blk"):
            recorded([path], ["rnull"])

    def test_smoke_tests_say_too_little(self, tmp_path: Path) -> None:
        run = run_of(test_of("pass"))
        smoke = msgspec.structs.replace(run.selection, smoke=True)
        finished = msgspec.structs.replace(run, selection=smoke)
        with pytest.raises(UsageError, match="--suite all"):
            recorded([record.write(finished, tmp_path)], ["rnull"])


class TestRustDrivers:
    def test_those_of_linux_unless_named(self) -> None:
        assert rust_drivers("") == ("rnull",)
        assert rust_drivers("rnvme") == ("rnvme",)
        with pytest.raises(UsageError, match="unknown Rust driver 'null_blk'"):
            rust_drivers("null_blk")
