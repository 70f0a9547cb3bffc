# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparison of two kernel configurations."""

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
from blockyard.ci.commands.config_diff import parse_kernel
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
    first, second = tmp_path / "first.config", tmp_path / "second"
    first.write_text(PLAIN)
    second.write_text(OTHER)
    return str(first), str(second)


class TestSymbols:
    def test_added_removed_and_changed(self) -> None:
        difference = compare({"A": "y", "B": "m", "C": "1"}, {"B": "y", "C": "1", "D": '"x"'})
        assert difference.removed == {"A": "y"}
        assert difference.added == {"D": '"x"'}
        assert difference.changed == {"B": Pair("m", "y")}

    def test_absent_symbols_are_off(self) -> None:
        difference = compare({"A": "n"}, {"B": "n"})
        assert (difference.added, difference.removed, difference.changed) == ({}, {}, {})

    def test_swapped_sides(self) -> None:
        a, b = {"A": "y", "C": "1"}, {"B": "m", "C": "2"}
        forward, backward = compare(a, b), compare(b, a)
        assert (forward.added, forward.removed) == (backward.removed, backward.added)
        assert forward.changed == {"C": Pair("1", "2")}
        assert backward.changed == {"C": Pair("2", "1")}


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
    def test_side_is_a_kernel_and_a_variant(self, text: str, kernel: str, variant: str) -> None:
        spec = parse_kernel(text)
        assert (spec.kernel, spec.variant) == (kernel, variant)

    def test_unknown_variant_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="unknown variant 'debgu'") as caught:
            parse_kernel("7.3:debgu")
        assert "debug" in caught.value.hint

    def test_unknown_side_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match=r"unknown kernel '7\.33'") as caught:
            parse_kernel("7.33")
        assert ".config file" in caught.value.hint

    def test_both_names_are_checked_before_a_kernel_is_configured(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def side(*arguments: object) -> config_diff.Side:
            raise AssertionError("a kernel was configured")

        monkeypatch.setattr(config_diff, "side", side)
        with pytest.raises(UsageError, match=r"7\.33"):
            config_diff.report("7.3", "7.33")

    def test_invalid_configuration_file_is_a_usage_error(
        self, tmp_path: Path, files: tuple[str, str]
    ) -> None:
        bad = tmp_path / "bad"
        bad.write_text("CONFIG_A=y\nnonsense\n")
        with pytest.raises(UsageError, match="bad:2"):
            config_diff.report(files[0], str(bad))

    def test_tarball_is_a_kernel(
        self, tmp_path: Path, files: tuple[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def side(text: str, what: object) -> config_diff.Side:
            raise UsageError(f"side is {what!r}")

        monkeypatch.setattr(config_diff, "side", side)
        tarball = tmp_path / "linux-9.tar.xz"
        tarball.touch()
        with pytest.raises(UsageError, match="KernelSpec"):
            config_diff.report(str(tarball), files[0])

    def test_binary_file_is_a_usage_error(self, tmp_path: Path, files: tuple[str, str]) -> None:
        bad = tmp_path / "bad"
        bad.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="cannot read the configuration"):
            config_diff.report(files[0], str(bad))


class TestReport:
    def test_drivers_are_compared(self, files: tuple[str, str]) -> None:
        report = config_diff.report(*files)
        assert report.drivers == {
            "null_blk": Pair("module", "module"),
            "nvme": Pair("built in", "-"),
            "rnull": Pair("-", "-"),
            "rnvme": Pair("-", "-"),
        }
        assert report.tools == {}

    def test_text_output(self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
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

    def test_json_output(self, files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
        config_diff.show(*files, as_json=True)
        report = json.loads(capsys.readouterr().out)
        assert report["symbols"]["changed"] == {"HZ": {"a": "250", "b": "1000"}}
        assert report["drivers"]["nvme"] == {"a": "built in", "b": "-"}


class TestFiles:
    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
    def test_compressed_configuration_is_read(
        self, files: tuple[str, str], tmp_path: Path, pack: Callable[[bytes], bytes]
    ) -> None:
        """Such as /proc/config.gz."""
        packed = tmp_path / "config.gz"
        packed.write_bytes(pack(PLAIN.encode()))
        report = config_diff.report(str(packed), files[0])
        assert report.symbols == compare({}, {})

    def test_byte_order_mark_is_ignored(self, files: tuple[str, str], tmp_path: Path) -> None:
        marked = tmp_path / "marked"
        marked.write_bytes(b"\xef\xbb\xbf" + PLAIN.encode())
        assert config_diff.report(str(marked), files[0]).symbols == compare({}, {})

    def test_truncated_archive_is_a_usage_error(
        self, files: tuple[str, str], tmp_path: Path
    ) -> None:
        packed = tmp_path / "config.gz"
        packed.write_bytes(gzip.compress(PLAIN.encode())[:20])
        with pytest.raises(UsageError, match=r"cannot unpack .*config\.gz"):
            config_diff.report(str(packed), files[0])

    def test_pipe_is_a_usage_error(self, files: tuple[str, str], tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UsageError, match="it is not a regular file"):
            config_diff.report(str(tmp_path / "pipe"), files[0])

    def test_escape_sequences_are_quoted(
        self, files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        odd = tmp_path / "odd.config"
        odd.write_text('CONFIG_LOCALVERSION="\x1b]0;title\x07"\n')
        config_diff.show(files[0], str(odd), as_json=False)
        shown = capsys.readouterr().out
        assert "\x1b" not in shown
        assert r"\x1b]0;title\x07" in shown
