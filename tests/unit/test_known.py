# SPDX-License-Identifier: GPL-2.0-or-later
"""Known failures: which test of which kernel an entry is about, and what becomes of it."""

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
    def test_it_is_found_by_pattern_driver_and_kernel(self) -> None:
        assert known().find("configfs/size(1)", "rnull", "") == ENTRY

    @pytest.mark.parametrize(
        ("test", "driver"), [("configfs/size", "rnull"), ("configfs/size(1)", "null_blk")]
    )
    def test_another_test_or_driver_is_not_meant(self, test: str, driver: str) -> None:
        assert known().find(test, driver, "") is None

    @pytest.mark.parametrize("release", ["6.12.117", "7.3.4", "7.3.0-rc7"])
    def test_another_kernel_is_not_meant(self, release: str) -> None:
        assert known(release).find("configfs/size(1)", "rnull", "") is None

    def test_a_variant_and_a_topology_can_be_named(self) -> None:
        entry = KnownFailure("nvme/x", "slow", variant="debug", topology="zns")
        assert known(variant="debug", entry=entry).find("nvme/x", "nvme", "zns")
        assert not known(variant="plain", entry=entry).find("nvme/x", "nvme", "zns")
        assert not known(variant="debug", entry=entry).find("nvme/x", "nvme", "")


class TestVerdict:
    @pytest.mark.parametrize(
        ("outcome", "verdict"),
        [
            ("fail", "xfail"),
            ("crash", "crash"),  # it was to fail, and did more
            ("timeout", "timeout"),
            ("pass", "xpass"),
            ("skip", "skip"),
            ("lost", "lost"),  # a test that never reported did not fail as expected
        ],
    )
    def test_of_a_known_failure(self, outcome: Outcome, verdict: Outcome) -> None:
        assert ENTRY.verdict(outcome) == verdict

    def test_an_entry_says_what_else_it_expects(self) -> None:
        entry = KnownFailure("block/x", "hangs", outcomes=("timeout", "crash"))
        assert [entry.verdict(one) for one in ("timeout", "crash", "fail")] == [
            "xfail",
            "xfail",
            "fail",
        ]

    def test_a_complaint_of_the_kernel_has_to_be_expected(self) -> None:
        assert ENTRY.verdict("fail", splat=True) == "fail"
        entry = KnownFailure("block/x", "warns", splat=True)
        assert entry.verdict("fail", splat=True) == "xfail"


class TestOver:
    def test_a_range_without_a_kernel_is_told(self) -> None:
        gone = KnownFailure("block/x", "mended", kernels="<5.10")
        (line,) = known(entry=gone).obsolete()
        assert "block/x" in line
        assert "<5.10" in line

    @pytest.mark.parametrize("kernels", ["", "<7.3", ">=6.1"])
    def test_one_that_holds_somewhere_is_not(self, kernels: str) -> None:
        assert known(entry=KnownFailure("block/x", "is so", kernels=kernels)).obsolete() == []


class TestFile:
    def test_ours_can_be_read(self) -> None:
        read(PROJECT / "tests" / FILE)

    def test_a_driver_brings_its_own(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text('[[failure]]\ntest = "block/x"\nreason = "young"\n')
        known = of([str(tmp_path)], "7.3.4", "plain")
        found = known.find("block/x", tmp_path.name, "")
        assert found is not None
        assert str(found) == "young"

    def test_what_a_driver_brings_is_for_itself(self, tmp_path: Path) -> None:
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

    def test_a_driver_speaks_for_no_other(self, tmp_path: Path) -> None:
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / FILE).write_text('[[failure]]\ntest = "*"\nreason = "x"\ndriver = "null_*"\n')
        with pytest.raises(UsageError, match="for the driver itself, mine"):
            of([str(folder)], "7.3.4", "plain")

    def test_a_huge_file(self, tmp_path: Path) -> None:
        (tmp_path / FILE).write_text("#" * (untrusted.TOML_BYTES + 1))
        with pytest.raises(UsageError, match="larger than 1 MiB"):
            read(tmp_path / FILE)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ('[[failure]]\ntest = "block/x"\n', "reason"),
            ('[[failure]]\ntest = "x"\nreason = "y"\nkernels = "new"\n', "'new'"),
            ('[[failure]]\ntest = "x"\nreason = "y"\nkernel = "7.3"\n', "kernel"),
        ],
    )
    def test_a_mistake_is_told_with_its_place(self, tmp_path: Path, text: str, told: str) -> None:
        path = tmp_path / FILE
        path.write_text(text)
        with pytest.raises(UsageError, match=told) as caught:
            read(path)
        assert str(path) in str(caught.value)
