# SPDX-License-Identifier: GPL-2.0-or-later
"""The suites as a whole: names, what is known of them."""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from ci import run
from kernel.host.settings import PROJECT
from modules import manifest
from tests.known import FILE, read


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> list[run.TestId]:
    """Every test of every driver, as ./inv test --list has them."""
    folder: Path = tmp_path_factory.mktemp("listing")
    wanted = run.selection(",".join(manifest.names()), "serial")
    return run.listing(wanted, folder)


def test_names_are_unique(listing: list[run.TestId]) -> None:
    counts = Counter(map(str, listing))
    assert [name for name, count in counts.items() if count > 1] == []


def test_every_known_failure_is_a_test(listing: list[run.TestId]) -> None:
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
    text = [path.read_text() for path in run.SUITES.rglob("test_*.py")]
    assert sum(len(re.findall(r"^def test_", one, re.MULTILINE)) for one in text) >= 110


def test_every_suite_is_in_the_readme() -> None:
    text = (PROJECT / "README.md").read_text()
    for suite in run.suites():
        assert f"| `{suite}` |" in text, f"the README's table has no suite {suite}"
