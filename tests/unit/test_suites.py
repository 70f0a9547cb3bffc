# SPDX-License-Identifier: GPL-2.0-or-later
"""All suites: unique test names, valid known failures, and selection by suite."""

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
    """Every test of every driver, as in ./inv test --list."""
    chosen = selection.select(",".join(manifest.names()), "serial")
    return list(collection.collected(chosen).values())


def test_names_are_unique(listing: list[CaseId]) -> None:
    counts = Counter(map(str, listing))
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_known_failure_is_a_test(listing: list[CaseId]) -> None:
    """A renamed test would silently lose its entry."""
    tests = {(test.id, test.slot.driver) for test in listing}
    for entry in read(PROJECT / "tests" / FILE):
        if entry.test.startswith("blktests/"):
            continue  # these come with the user's checkout
        assert any(
            fnmatchcase(test, entry.test) and fnmatchcase(driver, entry.driver)
            for test, driver in tests
        ), f"{FILE}: there is no test {entry.test} of {entry.driver}"


def test_smoke_tests_cover_every_suite_driver_and_console() -> None:
    chosen = selection.select(suite=selection.SMOKE)
    tests = list(collection.collected(chosen).values())
    assert {test.suite for test in tests} == set(selection.suites())
    assert {test.slot.driver for test in tests} == set(chosen.scope.drivers)
    assert {test.slot.console for test in tests} == {"serial", "ssh"}


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
def test_smoke_and_all_select_suites(suite: str, suites: tuple[str, ...], smoke: bool) -> None:
    chosen = selection.select(suite=suite)
    assert (chosen.suites, chosen.scope.smoke) == (suites, smoke)


def test_unknown_suite_error_lists_suites() -> None:
    with pytest.raises(UsageError, match="smoke"):
        selection.select(suite="smok")


class TestModuleSuite:
    """Test files in the folder of an out-of-tree driver."""

    def listed(
        self, tmp_path: Path, text: str, *, name: str = "mine", driver: str = ""
    ) -> list[str]:
        folder = tmp_path / name
        shutil.copytree(PROJECT / "modules" / "examples" / "c_null", folder)
        (folder / "test_mine.py").write_text(text)
        chosen = selection.select(
            driver, "serial", selection.SMOKE, outside=[manifest.of_folder(folder)]
        )
        return [str(test) for test in collection.collected(chosen).values()]

    def test_module_tests_are_a_suite_and_run_with_smoke(self, tmp_path: Path) -> None:
        names = self.listed(tmp_path, "def test_works(driver): pass\n")
        assert "mine/works[mine-serial]" in names
        assert "block/read[mine-serial]" in names

    def test_module_tests_run_only_with_their_driver(self, tmp_path: Path) -> None:
        names = self.listed(tmp_path, "def test_works(driver): pass\n", driver="null_blk")
        assert "block/read[null_blk-serial]" in names
        assert not [name for name in names if name.startswith("mine/")]

    @pytest.mark.parametrize("name", ["block", "smoke"])
    def test_name_of_an_existing_suite_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(UsageError, match="is another suite"):
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
    def test_unusable_test_file_is_an_error(
        self, tmp_path: Path, text: str, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            self.listed(tmp_path, text)
