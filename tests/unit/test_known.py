# SPDX-License-Identifier: GPL-2.0-or-later
"""Known failures: which tests and kernels an entry matches, and how it changes an outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.harness.known import FILE, Known, KnownFailure, of, read
from blockyard.tests.harness.outcomes import Outcome

ENTRY = KnownFailure(
    test="configfs/size(*)", driver="rnull", kernels=">=6.18,<7.3", reason="too small", link="b/1"
)


def known(release: str = "7.2.12", variant: str = "plain", entry: KnownFailure = ENTRY) -> Known:
    return Known((entry,), release, variant)


class TestFind:
    def test_entry_is_found_by_pattern_driver_and_kernel(self) -> None:
        assert known().find("configfs/size(1)", "rnull", "") == ENTRY

    @pytest.mark.parametrize(
        ("test", "driver"), [("configfs/size", "rnull"), ("configfs/size(1)", "null_blk")]
    )
    def test_other_tests_and_drivers_do_not_match(self, test: str, driver: str) -> None:
        assert known().find(test, driver, "") is None

    @pytest.mark.parametrize("release", ["6.12.117", "7.3.4", "7.3.0-rc7"])
    def test_other_kernels_do_not_match(self, release: str) -> None:
        assert known(release).find("configfs/size(1)", "rnull", "") is None

    def test_entry_can_name_a_variant_and_a_topology(self) -> None:
        entry = KnownFailure("nvme/x", "slow", variant="debug", topology="zns")
        assert known(variant="debug", entry=entry).find("nvme/x", "nvme", "zns")
        assert not known(variant="plain", entry=entry).find("nvme/x", "nvme", "zns")
        assert not known(variant="debug", entry=entry).find("nvme/x", "nvme", "")


class TestVerdict:
    @pytest.mark.parametrize(
        ("outcome", "verdict"),
        [
            ("fail", "xfail"),
            ("crash", "crash"),  # a crash is worse than the known failure
            ("timeout", "timeout"),
            ("pass", "xpass"),
            ("skip", "skip"),
            ("lost", "lost"),  # a test that never reported did not fail as expected
        ],
    )
    def test_outcome_of_a_known_failure(self, outcome: Outcome, verdict: Outcome) -> None:
        assert ENTRY.verdict(outcome) == verdict

    def test_entry_can_expect_other_outcomes(self) -> None:
        entry = KnownFailure("block/x", "hangs", outcomes=("timeout", "crash"))
        assert [entry.verdict(outcome) for outcome in ("timeout", "crash", "fail")] == [
            "xfail",
            "xfail",
            "fail",
        ]

    def test_splat_must_be_expected(self) -> None:
        assert ENTRY.verdict("fail", splat=True) == "fail"
        entry = KnownFailure("block/x", "warns", splat=True)
        assert entry.verdict("fail", splat=True) == "xfail"


class TestObsolete:
    def test_range_without_a_kernel_is_obsolete(self) -> None:
        gone = KnownFailure("block/x", "fixed", kernels="<5.10")
        (line,) = known(entry=gone).obsolete()
        assert "block/x" in line
        assert "<5.10" in line

    @pytest.mark.parametrize("kernels", ["", "<7.3", ">=6.1"])
    def test_entry_for_an_existing_kernel_is_not_obsolete(self, kernels: str) -> None:
        assert known(entry=KnownFailure("block/x", "fails", kernels=kernels)).obsolete() == []


class TestFile:
    def test_our_file_is_valid(self) -> None:
        read(PROJECT / "tests" / FILE)

    def test_entries_of_a_module_folder(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text('[[failure]]\ntest = "block/x"\nreason = "young"\n')
        known = of([str(tmp_path)], "7.3.4", "plain")
        entry = known.find("block/x", tmp_path.name, "")
        assert entry is not None
        assert str(entry) == "young"

    def test_entries_of_a_module_folder_match_its_driver_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "mine"
        folder.mkdir()
        text = '[[failure]]\ntest = "*"\nreason = "all"\n'
        text += 'outcomes = ["fail", "crash", "timeout"]\nsplat = true\n'
        (folder / FILE).write_text(text)
        known = of([str(folder)], "7.3.4", "plain")
        assert known.find("block/read", "mine", "")
        ours = of([], "7.3.4", "plain")
        for driver in ("null_blk", "rnull", "nvme", "mine2"):
            assert known.find("block/read", driver, "") == ours.find("block/read", driver, "")

    def test_entry_for_another_driver_is_a_usage_error(self, tmp_path: Path) -> None:
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / FILE).write_text('[[failure]]\ntest = "*"\nreason = "x"\ndriver = "null_*"\n')
        with pytest.raises(UsageError, match="the driver of this folder"):
            of([str(folder)], "7.3.4", "plain")

    def test_huge_file_is_a_usage_error(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text("#" * (untrusted.TOML_BYTES + 1))
        with pytest.raises(UsageError, match="larger than 1 MiB"):
            read(tmp_path / FILE)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('[[failure]]\ntest = "block/x"\n', "reason"),
            ('[[failure]]\ntest = "x"\nreason = "y"\nkernels = "new"\n', "'new'"),
            ('[[failure]]\ntest = "x"\nreason = "y"\nkernel = "7.3"\n', "kernel"),
        ],
    )
    def test_invalid_entry_is_a_usage_error_with_the_path(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        path = tmp_path / FILE
        path.write_text(text)
        with pytest.raises(UsageError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
