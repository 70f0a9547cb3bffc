# SPDX-License-Identifier: GPL-2.0-or-later
"""Versions, version ranges, and the quirks that change requests in a range."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.config import kconfig, quirks, variants
from blockyard.kernel.config.fragments import shipped_fragment
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.config.quirks import adapted, why_not
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.versions import at_least, check_range, release, within

RANGES = (
    ("7.3.4", "<7.3", False),
    ("7.3.0-rc7", "<7.3", False),  # a release candidate has the interfaces of its release
    ("7.2.12", "<7.3", True),
    ("6.9.1", "<6.11", True),  # compared as numbers
    ("6.12.117+deb13-amd64", ">=6.12,<7.3", True),
    ("7.3", ">=6.12,<7.3", False),
)


class TestVersions:
    @pytest.mark.parametrize(
        ("version", "expected"),
        [("7.3", "7.3"), ("7.3.4", "7.3"), ("7.3.0-rc7", "7.3"), ("6.12.1+x", "6.12"), ("", "0")],
    )
    def test_release(self, version: str, expected: str) -> None:
        assert release(version) == expected

    @pytest.mark.parametrize(("version", "kernels", "expected"), RANGES)
    def test_within(self, version: str, kernels: str, expected: bool) -> None:
        assert within(version, kernels) == expected

    @pytest.mark.parametrize("kernels", ["6.12", "=>6.12", "before 7.3"])
    def test_invalid_range_is_named_with_its_file(self, kernels: str) -> None:
        with pytest.raises(UsageError, match=r"mine\.toml: invalid range of kernels"):
            check_range(kernels, "mine.toml")

    @pytest.mark.parametrize(
        ("version", "minimum", "expected"),
        [
            ("1.85.1", "1.85.0", True),
            ("1.85", "1.85.0", True),
            ("1.84.9", "1.85.0", False),
            ("1.100.0", "1.85.0", True),
            ("0.71.1-4", "0.71.1", True),
            ("1:19.1.7-3+b1", "17.0.1", True),  # Debian's epoch is no part of the version
            ("1:19.1.7-3+b1", "20", False),
        ],
    )
    def test_at_least(self, version: str, minimum: str, expected: bool) -> None:
        assert at_least(version, minimum) == expected


TABLE = """
[[difference]]
kernels = "<6.13"
drop = ["LAZY"]
ask = ["CONFIG_VOLUNTARY=y"]
reason = "it came with 6.13"

[[difference]]
kernels = "<6.4"
drop = ["VOLUNTARY", "NEW"]
reason = "it came with 6.4"
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the table of quirks."""
    (tmp_path / "versions.toml").write_text(TABLE)
    rows = quirks.read(tmp_path / "versions.toml")
    monkeypatch.setattr(quirks, "_table", lambda: rows)


@pytest.mark.usefixtures("table")
class TestAdapted:
    FRAGMENT = Fragment("a.config", "# LAZY\nCONFIG_LAZY=y\nCONFIG_LAZY_MORE=y\nCONFIG_NEW=m")

    def test_kernel_outside_all_ranges_gets_every_request(self) -> None:
        assert adapted(self.FRAGMENT, "6.13.1").text == self.FRAGMENT.text + "\n"

    def test_dropped_lines_are_blank_and_added_ones_come_last(self) -> None:
        text = adapted(self.FRAGMENT, "6.12.5").text
        expected = "# LAZY\n\nCONFIG_LAZY_MORE=y\nCONFIG_NEW=m\nCONFIG_VOLUNTARY=y\n"
        assert text == expected
        assert kconfig.merge([Fragment("a.config", text)]).requests["NEW"].line == 4

    def test_later_row_changes_additions_of_an_earlier_one(self) -> None:
        assert adapted(self.FRAGMENT, "6.1").text == "# LAZY\n\nCONFIG_LAZY_MORE=y\n\n\n"

    def test_dropped_symbol_that_is_not_requested_adds_nothing(self) -> None:
        fragment = Fragment("a.config", "# CONFIG_LAZY is not set\n")
        assert adapted(fragment, "6.1") == fragment

    def test_reason_for_a_dropped_symbol(self) -> None:
        assert why_not("LAZY", "6.12.5") == "it came with 6.13"
        assert why_not("LAZY", "6.13.0-rc1") == ""
        assert why_not("OTHER", "6.1") == ""


class TestTable:
    def test_every_row_of_the_table_concerns_a_fragment(self) -> None:
        rows = quirks.read(quirks.TABLE)
        requested = {
            symbol
            for name in variants.names()
            for part in [shipped_fragment("base"), shipped_fragment("rust")]
            + variants.fragments(name, rust=True)
            for symbol in kconfig.merge([part]).requests
        }
        added = {symbol for row in rows for symbol in kconfig.parse("\n".join(row.ask))}
        for row in rows:
            assert set(row.drop) <= requested | added, row.reason
            assert row.reason

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ('kernels = "<6.4"', 'kernels = "6.4"'),
            ('drop = ["LAZY"]', "drop = 5"),
            ("reason =", "because ="),
            ("[[difference]]", "[[difference"),
        ],
    )
    def test_invalid_table_is_named(self, tmp_path: Path, old: str, new: str) -> None:
        assert old in TABLE
        path = tmp_path / "versions.toml"
        path.write_text(TABLE.replace(old, new))
        with pytest.raises(UsageError, match=r"versions\.toml"):
            quirks.read(path)
