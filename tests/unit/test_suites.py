# SPDX-License-Identifier: GPL-2.0-or-later
"""The suites as a whole: names, what is known of them."""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from ci import collection, selection
from kernel.host.errors import UserError
from kernel.host.settings import PROJECT
from modules import manifest
from tests.known import FILE, read


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> list[collection.TestId]:
    """Every test of every driver, as ./inv test --list has them."""
    folder: Path = tmp_path_factory.mktemp("listing")
    wanted = selection.select(",".join(manifest.names()), "serial")
    return collection.listing(wanted, folder)


def test_names_are_unique(listing: list[collection.TestId]) -> None:
    counts = Counter(map(str, listing))
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_known_failure_is_a_test(listing: list[collection.TestId]) -> None:
    """One that was renamed would be expected no more, and nobody told."""
    there = {(one.id, one.slot.driver) for one in listing}
    for entry in read(PROJECT / "tests" / FILE):
        if entry.test.startswith("blktests/"):
            continue  # upstream's, which come with the user's checkout
        assert any(
            fnmatchcase(test, entry.test) and fnmatchcase(driver, entry.driver)
            for test, driver in there
        ), f"{FILE}: there is no test {entry.test} of {entry.driver}"


def test_there_are_as_many_as_promised() -> None:
    text = [path.read_text() for path in selection.SUITES.rglob("test_*.py")]
    assert sum(len(re.findall(r"^def test_", one, re.MULTILINE)) for one in text) >= 110


def test_smoke_tests_are_of_every_suite_and_driver(tmp_path: Path) -> None:
    wanted = selection.select(suite=selection.SMOKE)
    first = collection.listing(wanted, tmp_path)
    assert {one.suite for one in first} == set(selection.suites())
    assert {one.slot.driver for one in first} == set(wanted.drivers)
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
    assert (wanted.suites, wanted.smoke) == (suites, smoke)


def test_an_unknown_suite_names_the_words_too() -> None:
    with pytest.raises(UserError, match="smoke"):
        selection.select(suite="smok")


def test_every_suite_is_in_the_readme() -> None:
    text = (PROJECT / "README.md").read_text()
    for suite in selection.suites():
        assert f"| `{suite}` |" in text, f"the README's table has no suite {suite}"
