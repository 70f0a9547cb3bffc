# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of kernels: rows from runs, and their rendering."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.ci import output
from blockyard.ci.report import markdown
from blockyard.ci.studies import survey
from blockyard.ci.studies.survey import (
    Driver,
    Row,
    driver,
    joined,
    page,
    read_rows,
    size_mib,
    survey_table,
)
from blockyard.images.errors import QemuDied
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.unit import samples

NO_RUST = "before 6.11 a kernel's Rust code compiles with one version of rustc only"


def shown(rows: list[Row]) -> str:
    """Return the table of the rows with its footnotes."""
    return "\n".join(markdown.lines(survey_table(rows)))


def row(**values: object) -> Row:
    known = {"kernel": "7.3", "date": "2026-01-02", "accelerator": "tcg"}
    return Row(**(known | values))  # type: ignore[arg-type]


class TestSurvey:
    def test_unknown_accelerator_ends_the_command(self) -> None:
        with pytest.raises(UsageError, match="unknown accelerator 'kmv'"):
            survey.survey([KernelSpec("7.3")], "kmv", 1)

    @pytest.mark.parametrize(
        "error", [UsageError("no directory /tree"), QemuDied("QEMU died"), Failure("it is full")]
    )
    def test_error_of_a_kernel_is_the_problem_of_its_row(
        self, error: BlockyardError, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(spec: KernelSpec, row: Row) -> Row:
            if spec.kernel == "7.3":
                raise error
            raise Failure("not fetched")

        monkeypatch.setattr(survey, "_fetch", fails)
        rows = survey.survey([KernelSpec("7.3"), KernelSpec("7.2")], "tcg", 1)
        assert [row.problem for row in rows] == [str(error), "not fetched"]


class TestDriver:
    def test_outcomes_are_counted(self) -> None:
        finished = samples.run_of(samples.result("pass"), samples.result("pass", "io/x"))
        assert driver(finished, "null_blk") == Driver(outcomes={"pass": 2})

    def test_common_reason_of_all_skips_is_the_drivers(self) -> None:
        skips = [samples.result("skip", name, reason="no rnull") for name in ("a/b", "c/d")]
        assert driver(samples.run_of(*skips), "null_blk").reason == "no rnull"

    def test_skips_beside_a_pass_give_no_reason(self) -> None:
        finished = samples.run_of(
            samples.result("skip", reason="why"), samples.result("pass", "a/b")
        )
        assert driver(finished, "null_blk").reason == ""


class TestTable:
    def test_missing_driver_has_a_footnote(self) -> None:
        missing = Driver(outcomes={"skip": 4}, reason="no Rust here")
        text = shown([row(drivers={"rnull": missing, "nvme": Driver(outcomes={"pass": 3})})])
        assert "| no (1) | 3 pass |" in text
        assert text.endswith("1. no Rust here")

    def test_shared_reason_is_one_footnote(self) -> None:
        rows = [row(kernel="6.1", rust=NO_RUST), row(kernel="6.2", rust=NO_RUST)]
        assert shown(rows).count(NO_RUST) == 1

    def test_failures_are_bold(self) -> None:
        drivers = {"nvme": Driver(outcomes={"pass": 3, "crash": 1})}
        assert "| 3 pass, **1 crash** |" in shown([row(drivers=drivers)])

    def test_failure_has_a_footnote_with_its_reason(self) -> None:
        finished = samples.run_of(samples.result("fail", "io/read", reason="3 of\n4 blocks"))
        text = shown([row(drivers={"null_blk": driver(finished, "null_blk")})])
        assert "| **1 fail** (1) |" in text
        assert text.endswith("1. io/read: 3 of 4 blocks")

    def test_first_missing_stage_has_the_problem(self) -> None:
        text = shown([row(reached=("fetched",), problem="the build failed")])
        assert "| yes | no (1) | no |" in text
        assert "1. the build failed" in text

    def test_page_names_dates_and_accelerator(self) -> None:
        text = page([row(), row(date="2026-01-05")])
        assert "Run 2026-01-02 to 2026-01-05 with tcg." in text


def test_size_excludes_links_and_missing_paths(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (2 << 20))
    (tmp_path / "link").symlink_to("a")
    assert size_mib(tmp_path, tmp_path / "missing") == 2


class TestStoredRows:
    def test_new_rows_replace_only_their_kernels(self) -> None:
        earlier = (row(kernel="/tree"), row(kernel="6.1"), row(kernel="7.3", date="2026-01-01"))
        rows = joined(earlier, [row(kernel="7.3"), row(kernel="7.2")])
        assert [row.kernel for row in rows] == ["7.3", "7.2", "6.1", "/tree"]
        assert rows[0].date == "2026-01-02"

    def test_written_rows_read_back(self, tmp_path: Path) -> None:
        rows = (row(drivers={"nvme": Driver(outcomes={"pass": 3}, bad={"a/b": "why"})}),)
        path = tmp_path / "kernels.json"
        assert read_rows(path) == ()
        path.write_text(output.as_json(rows))
        assert read_rows(path) == rows
