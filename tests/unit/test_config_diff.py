# SPDX-License-Identifier: GPL-2.0-or-later
"""Two configurations side by side."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from blockyard.ci.commands import config_diff
from blockyard.ci.commands.config_diff import choice
from blockyard.kernel.config.diff import Pair, compare
from blockyard.kernel.host.errors import UsageError

PLAIN = """CONFIG_BLK_DEV_NULL_BLK=m
CONFIG_BLK_DEV_NVME=y
CONFIG_HZ=250
# CONFIG_KASAN is not set
"""
OTHER = """CONFIG_BLK_DEV_NULL_BLK=m
CONFIG_HZ=1000
CONFIG_KASAN=y
# CONFIG_BLK_DEV_NVME is not set
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    one, other = tmp_path / "one.config", tmp_path / "other"
    one.write_text(PLAIN)
    other.write_text(OTHER)
    return str(one), str(other)


class TestSymbols:
    def test_added_removed_and_changed(self) -> None:
        found = compare({"A": "y", "B": "m", "C": "1"}, {"B": "y", "C": "1", "D": '"x"'})
        assert found.removed == {"A": "y"}
        assert found.added == {"D": '"x"'}
        assert found.changed == {"B": Pair("m", "y")}

    def test_absent_and_not_set_are_both_off(self) -> None:
        found = compare({"A": "n"}, {"B": "n"})
        assert (found.added, found.removed, found.changed) == ({}, {}, {})

    def test_the_other_way_round(self) -> None:
        a, b = {"A": "y", "C": "1"}, {"B": "m", "C": "2"}
        there, back = compare(a, b), compare(b, a)
        assert (there.added, there.removed) == (back.removed, back.added)
        assert there.changed == {"C": Pair("1", "2")}
        assert back.changed == {"C": Pair("2", "1")}


class TestSides:
    @pytest.mark.parametrize(
        ("text", "kernel", "variant"),
        [
            ("7.3", "7.3", "plain"),
            ("7.3:debug", "7.3", "debug"),
            ("7.3:plain", "7.3", "plain"),
            ("./linux:kasan", "./linux", "kasan"),
            ("https://git.example/linux.git#main", "https://git.example/linux.git#main", "plain"),
            ("/path/linux#topic:debug", "/path/linux#topic", "debug"),
        ],
    )
    def test_a_kernel_and_its_variant(self, text: str, kernel: str, variant: str) -> None:
        found = choice(text)
        assert (found.kernel, found.variant) == (kernel, variant)

    def test_a_variant_that_there_is_not(self) -> None:
        with pytest.raises(UsageError, match="unknown variant 'debgu'") as caught:
            choice("7.3:debgu")
        assert "debug" in caught.value.hint

    def test_a_name_that_is_neither_kernel_nor_file(self) -> None:
        with pytest.raises(UsageError, match=r"unknown kernel '7\.33'") as caught:
            choice("7.33")
        assert ".config file" in caught.value.hint

    def test_the_second_name_is_checked_before_the_first_kernel_is_configured(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def side(*arguments: object) -> config_diff.Side:
            raise AssertionError("it was configured")

        monkeypatch.setattr(config_diff, "side", side)
        with pytest.raises(UsageError, match=r"7\.33"):
            config_diff.report("7.3", "7.33")

    def test_a_file_that_is_no_configuration(self, tmp_path: Path, files: tuple[str, str]) -> None:
        bad = tmp_path / "bad"
        bad.write_text("CONFIG_A=y\nnonsense\n")
        with pytest.raises(UsageError, match="bad:2"):
            config_diff.report(files[0], str(bad))

    def test_a_tarball_is_a_kernel(
        self, tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def side(text: str, what: object) -> config_diff.Side:
            raise UsageError(f"taken for {what!r}")

        monkeypatch.setattr(config_diff, "side", side)
        tarball = tmp_path / "linux-9.tar.xz"
        tarball.touch()
        with pytest.raises(UsageError, match="KernelSpec"):
            config_diff.report(str(tarball), files[0])

    def test_a_file_that_is_no_text(self, tmp_path: Path, files: tuple[str, str]) -> None:
        bad = tmp_path / "bad"
        bad.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="cannot read the configuration"):
            config_diff.report(files[0], str(bad))


class TestReport:
    def test_drivers_of_two_files(self, files: tuple[str, str]) -> None:
        found = config_diff.report(*files)
        assert found.drivers == {
            "null_blk": Pair("module", "module"),
            "nvme": Pair("built in", "-"),
            "rnull": Pair("-", "-"),
            "rnvme": Pair("-", "-"),
        }
        assert found.tools == {}

    def test_as_lines(self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        config_diff.show(*files, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[1:6] == [
            "-BLK_DEV_NVME y",
            " HZ 250 -> 1000",
            "+KASAN y",
            "",
            "1 removed, 1 changed, 1 added",
        ]
        assert "  nvme       built in   -   differs" in lines
        assert "  null_blk   module     module" in lines

    def test_as_json(self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        config_diff.show(*files, as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert found["symbols"]["changed"] == {"HZ": {"a": "250", "b": "1000"}}
        assert found["drivers"]["nvme"] == {"a": "built in", "b": "-"}


class TestFiles:
    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
    def test_a_compressed_configuration(
        self, files: tuple[str, str], tmp_path: Path, pack: Callable[[bytes], bytes]
    ) -> None:
        """As /proc/config.gz is."""
        packed = tmp_path / "config.gz"
        packed.write_bytes(pack(PLAIN.encode()))
        found = config_diff.report(str(packed), files[0])
        assert found.symbols == compare({}, {})

    def test_one_with_a_mark_at_its_beginning(self, files: tuple[str, str], tmp_path: Path) -> None:
        marked = tmp_path / "marked"
        marked.write_bytes(b"\xef\xbb\xbf" + PLAIN.encode())
        assert config_diff.report(str(marked), files[0]).symbols == compare({}, {})

    def test_a_damaged_one(self, files: tuple[str, str], tmp_path: Path) -> None:
        packed = tmp_path / "config.gz"
        packed.write_bytes(gzip.compress(PLAIN.encode())[:20])
        with pytest.raises(UsageError, match=r"cannot unpack .*config\.gz"):
            config_diff.report(str(packed), files[0])

    def test_a_pipe_is_not_waited_for(self, files: tuple[str, str], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UsageError, match="it is not a regular file"):
            config_diff.report(str(tmp_path / "pipe"), files[0])

    def test_escape_sequences_are_shown_and_not_obeyed(
        self, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        odd = tmp_path / "odd.config"
        odd.write_text('CONFIG_LOCALVERSION="\x1b]0;title\x07"\n')
        config_diff.show(files[0], str(odd), as_json=False)
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert r"\x1b]0;title\x07" in shown
