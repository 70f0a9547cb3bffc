# SPDX-License-Identifier: GPL-2.0-or-later
"""State of a driver's feature, derived from the outcomes of its tests."""

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


def case(
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


class TestCell:
    @pytest.mark.parametrize(
        ("tests", "state"),
        [
            ([case("pass")], "supported"),
            ([case("xpass")], "supported"),
            ([case("pass"), case("skip", reason="rnull has no attribute x")], "supported"),
            ([case("pass"), case("fail", reason="no")], "broken"),
            ([case("pass"), case("xfail", reason="known")], "broken"),
            ([case("pass"), case("lost", reason="died")], "broken"),
            ([case("pass"), case("xfail", name="abi/x", reason="C 1, Rust 2")], "differs"),
            ([case("fail"), case("fail", name="abi/x")], "broken"),
            ([case("skip", reason="rnull has no attribute size")], "missing"),
            ([case("skip", reason="no such thing", lacking="kernel")], "untested"),
            ([case("skip", reason="rnull is built in", lacking="kernel")], "untested"),
            ([case("skip", reason="rnull is not meant", lacking="test")], "untested"),
            ([], "untested"),
        ],
    )
    def test_state_by_outcomes(self, tests: list[CaseResult], state: State) -> None:
        assert cell(tests).state == state

    def test_reason_is_one_line(self) -> None:
        tests = [case("xfail", name="abi/x", reason="known: C 1, Rust 2\nassert 1 == 2")]
        assert cell(tests) == Cell("differs", 1, ("known: C 1, Rust 2: assert 1 == 2",))


class TestPair:
    RUN = run_of(
        case("pass", "size", "null_blk"),
        case("pass", "size"),
        case("pass", "zoned", "null_blk"),
        case("skip", "zoned", reason="rnull has no attribute zoned"),
        case("skip", "zoned", reason="rnull has no attribute zoned"),
        case("pass", "mbps", "null_blk"),
        case("skip", "mbps", reason="rnull has no attribute mbps"),
        case("skip", "smart", "null_blk", reason="null_blk is not an NVMe driver"),
        case("skip", "smart", reason="rnull is not an NVMe driver"),
        case("pass", "size", "nvme"),
    )

    def test_feature_of_neither_driver_is_omitted(self) -> None:
        parities = pair(self.RUN, Path("results/r/run.json"), "rnull")
        assert list(parities.features) == ["mbps", "size", "zoned"]
        assert parities.record == "r"
        assert parities.counts("rnull") == {"missing": 2, "supported": 1}

    def test_missing_features_are_sorted_by_tests(self) -> None:
        parities = pair(self.RUN, Path("r/run.json"), "rnull")
        assert list(parities.missing().items()) == [("zoned", 2), ("mbps", 1)]
        assert "zoned (2 tests), mbps (1 tests)" in parity.summary(parities)

    def test_page_has_the_table_and_the_differences(self) -> None:
        run = run_of(
            case("pass", "size", "null_blk"),
            case("xfail", "size", name="abi/defaults(size)", reason="4 GiB"),
        )
        text = parity.page([pair(run, Path("r/run.json"), "rnull")])
        assert "| size | supported | differs |" in text
        assert "- size: 4 GiB" in text


class TestRecorded:
    def test_run_without_the_counterpart_is_refused(self, tmp_path: Path) -> None:
        path = record.write(run_of(case("pass")), tmp_path)
        with pytest.raises(UsageError, match="no tests of null_blk"):
            recorded([path], ["rnull"])

    def test_smoke_run_is_refused(self, tmp_path: Path) -> None:
        run = run_of(case("pass"))
        smoke = msgspec.structs.replace(run.selection, smoke=True)
        finished = msgspec.structs.replace(run, selection=smoke)
        with pytest.raises(UsageError, match="--suite all"):
            recorded([record.write(finished, tmp_path)], ["rnull"])


class TestRustDrivers:
    def test_default_is_the_rust_drivers_of_linux(self) -> None:
        assert rust_drivers("") == ("rnull",)
        assert rust_drivers("rnvme") == ("rnvme",)
        with pytest.raises(UsageError, match="unknown Rust driver 'null_blk'"):
            rust_drivers("null_blk")
