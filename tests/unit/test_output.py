# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables, their footnotes, and untrusted text in what is printed."""

from __future__ import annotations

import errno
import json
import os
import pty
import sys
from pathlib import Path

import pytest

from blockyard.ci import output
from blockyard.ci.commands import config_diff, shell
from blockyard.ci.report import markdown, terminal
from blockyard.ci.report.table import Footnotes, table
from blockyard.kernel.host.progress import printable
from blockyard.tests.harness.outcomes import OUTCOMES
from blockyard.tests.unit.samples import result, run_of

# Text from a guest, patch or manifest with commands for a terminal, a CI runner and rich.
HOSTILE = (
    "\x1b[2J\x9b31m \u202egnp.exe\u2066 ##[error]x ##vso[x] [bold]b[/] "
    "[link=http://x]l[/link] :bug:\n::set-output name=x::y\n   ::add-mask::x [/]"
)
COMMANDS = ("\x1b", "\x9b", "\u202e", "\u2066", "##[", "##vso[", "\n::", " ::", "\U0001f41b")


def is_only_text(shown: str) -> bool:
    """Return whether all commands are escaped; without a terminal there are no colours."""
    return not any(command in shown for command in COMMANDS) and "[link=http://x]" in shown


def test_markdown_cell_is_escaped() -> None:
    lines = markdown.simple(["a", "b"], [["1|2", "two\nlines"]])
    assert lines == ["| a | b |", "| --- | --- |", r"| 1\|2 | two lines |"]


def test_footnote_is_printed_once() -> None:
    notes = Footnotes()
    assert [notes.mark(reason) for reason in ("no Rust", "no disk", "no Rust")] == [
        "(1)",
        "(2)",
        "(1)",
    ]
    assert notes.lines() == ["1. no Rust", "2. no disk"]


class TestUntrustedText:
    @pytest.fixture(autouse=True)
    def no_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CI"):
            monkeypatch.delenv(name, raising=False)

    def test_report_has_no_commands(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Reasons, kernel logs and names of each outcome."""
        tests = [
            result(outcome, f"io/{HOSTILE}", reason=HOSTILE, kernel_log=HOSTILE)
            for outcome in OUTCOMES
        ]
        terminal.show(run_of(*tests), Path("/r"))
        assert is_only_text(capsys.readouterr().out)

    @pytest.mark.parametrize("columns", [20, 80, 400])
    def test_wrapped_table_cells_have_no_commands(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
    ) -> None:
        monkeypatch.setattr(output, "PIPE_COLUMNS", columns)
        wraps = "words that wrap ::error::x " * 9
        terminal.print_table(table([HOSTILE], [[wraps]]))
        shown = capsys.readouterr().out
        assert not any(line.lstrip().startswith("::") for line in shown.splitlines())
        assert is_only_text(shown.replace("\n", ""))

    def test_config_diff_has_no_commands(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name, value in (("a", "x"), ("b", "\x1b]0;t\x07##[error]")):
            (tmp_path / name).write_text(f'CONFIG_A="{value}"\n')
        config_diff.show(str(tmp_path / "a"), str(tmp_path / "b"), as_json=False)
        assert ' A "x" -> "\\x1b]0;t\\x07\\x23#[error]"\n' in capsys.readouterr().out

    def test_json_keeps_the_text(self) -> None:
        text = output.as_json({"reason": HOSTILE})
        assert json.loads(text) == {"reason": HOSTILE}
        assert printable(text) == text


class TestNarrowTerminals:
    def test_table_is_not_truncated(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "PIPE_COLUMNS", 20)
        run = run_of(
            *(result(outcome) for outcome in OUTCOMES), result("pass", driver="a_long_driver")
        )
        terminal.show(run, Path("/results/run.json"))
        out = capsys.readouterr().out
        assert "\u2026" not in out
        assert all(word in out for word in ("a_long_driver", *OUTCOMES))

    def test_closed_pipe_raises_broken_pipe_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """rich would exit with 1, which means that a test failed."""
        read, write = os.pipe()
        os.close(read)
        with open(write, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            with pytest.raises(BrokenPipeError) as caught:
                output.console().print("text")
            assert caught.value.errno == errno.EPIPE
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, write)
            os.close(null)


class TestOutputOfACommand:
    """`./inv boot --run`: raw bytes for programs, escaped text for terminals and CI logs."""

    DATA = b"\x1b[31mred\xff\r\n::error::x\n"
    TEXT = "\\x1b[31mred\\xff\n\\x3a:error::x\n"

    def printed(
        self, monkeypatch: pytest.MonkeyPatch, stdout: tuple[int, int], *, raw: bool = False
    ) -> bytes:
        read, write = stdout
        with open(write, "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            shell.pass_on(self.DATA, raw=raw)
            data = os.read(read, 1000)
        os.close(read)
        return data

    def test_pipe_gets_raw_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CI", raising=False)
        assert self.printed(monkeypatch, os.pipe()) == self.DATA

    @pytest.mark.parametrize("raw", [False, True])
    def test_pipe_in_ci_gets_text_unless_raw(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raw: bool
    ) -> None:
        monkeypatch.setenv("CI", "true")
        shown = self.printed(monkeypatch, os.pipe(), raw=raw)
        assert shown == (self.DATA if raw else self.TEXT.encode())
        assert ("--raw keeps them" in capsys.readouterr().err) != raw

    def test_file_in_ci_gets_raw_bytes(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("CI", "true")
        with open(tmp_path / "data", "w") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            shell.pass_on(self.DATA, raw=False)
        assert (tmp_path / "data").read_bytes() == self.DATA

    @pytest.mark.parametrize("raw", [False, True])
    def test_terminal_gets_text_unless_raw(
        self, monkeypatch: pytest.MonkeyPatch, raw: bool
    ) -> None:
        monkeypatch.delenv("CI", raising=False)
        shown = self.printed(monkeypatch, pty.openpty(), raw=raw)
        assert (b"\x1b" in shown) == raw
