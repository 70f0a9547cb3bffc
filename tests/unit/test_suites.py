# SPDX-License-Identifier: GPL-2.0-or-later
"""The suites as a whole: names, what is known of them."""

from __future__ import annotations

import shutil
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from blockyard.ci.run import collection, selection
from blockyard.ci.run.case_id import CaseId
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.modules import manifest
from blockyard.tests.harness.known import FILE, read


@pytest.fixture(scope="module")
def listing() -> list[CaseId]:
    """Every test of every driver, as ./inv test --list has them."""
    wanted = selection.select(",".join(manifest.names()), "serial")
    return list(collection.collected(wanted).values())


def test_names_are_unique(listing: list[CaseId]) -> None:
    counts = Counter(map(str, listing))
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_known_failure_is_a_test(listing: list[CaseId]) -> None:
    """One that was renamed would be expected no more, and nobody told."""
    there = {(one.id, one.slot.driver) for one in listing}
    for entry in read(PROJECT / "tests" / FILE):
        if entry.test.startswith("blktests/"):
            continue  # upstream's, which come with the user's checkout
        assert any(
            fnmatchcase(test, entry.test) and fnmatchcase(driver, entry.driver)
            for test, driver in there
        ), f"{FILE}: there is no test {entry.test} of {entry.driver}"


def test_smoke_tests_are_of_every_suite_and_driver() -> None:
    wanted = selection.select(suite=selection.SMOKE)
    first = list(collection.collected(wanted).values())
    assert {one.suite for one in first} == set(selection.suites())
    assert {one.slot.driver for one in first} == set(wanted.scope.drivers)
    assert {one.slot.console for one in first} == {"serial", "ssh"}


@pytest.mark.parametrize(
    ("suite", "suites", "smoke"),
    [
        ("smoke", tuple(selection.suites()), True),
        ("all", tuple(selection.suites()), False),
        ("all,block", tuple(selection.suites()), False),
        ("smoke,block", ("block",), True),
        ("block,nvme", ("block", "nvme"), False),
    ],
)
def test_words_for_suites(suite: str, suites: tuple[str, ...], smoke: bool) -> None:
    wanted = selection.select(suite=suite)
    assert (wanted.suites, wanted.scope.smoke) == (suites, smoke)


def test_an_unknown_suite_names_the_words_too() -> None:
    with pytest.raises(UsageError, match="smoke"):
        selection.select(suite="smok")


class TestOfADriversOwn:
    """Test files in the folder of a driver outside the tree."""

    def listed(
        self, tmp_path: Path, text: str, *, name: str = "mine", driver: str = ""
    ) -> list[str]:
        folder = tmp_path / name
        shutil.copytree(PROJECT / "modules" / "examples" / "c_null", folder)
        (folder / "test_mine.py").write_text(text)
        wanted = selection.select(
            driver, "serial", selection.SMOKE, outside=[manifest.of_folder(folder)]
        )
        return [str(test) for test in collection.collected(wanted).values()]

    def test_they_are_a_suite_that_is_run_whole(self, tmp_path: Path) -> None:
        found = self.listed(tmp_path, "def test_works(driver): pass\n")
        assert "mine/works[mine-serial]" in found
        assert "block/read[mine-serial]" in found

    def test_they_are_for_their_driver(self, tmp_path: Path) -> None:
        found = self.listed(tmp_path, "def test_works(driver): pass\n", driver="null_blk")
        assert "block/read[null_blk-serial]" in found
        assert not [one for one in found if one.startswith("mine/")]

    @pytest.mark.parametrize("name", ["block", "smoke"])
    def test_a_suite_of_that_name_is_there(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="another suite is called"):
            self.listed(tmp_path, "def test_works(driver): pass\n", name=name)

    @pytest.mark.parametrize(
        ("text", "error", "message"),
        [
            ("import pytest\npytest.importorskip('nope')\n", Failure, "could not import 'nope'"),
            ("1 / 0\n", Failure, "ZeroDivisionError"),
            (
                "import unittest\nclass T(unittest.TestCase):\n  def test_x(self): 0\n",
                UsageError,
                "suite",
            ),
        ],
        ids=["skipped", "broken", "classes"],
    )
    def test_none_is_taken_for_empty(
        self, tmp_path: Path, text: str, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            self.listed(tmp_path, text)
