# SPDX-License-Identifier: GPL-2.0-or-later
"""Running programs: output, logs, messages of failures, and no process left behind."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blockyard.kernel.host import causes, commands
from blockyard.kernel.host.commands import without_headings
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.limits import Limits
from blockyard.kernel.host.process import TAIL_LINES, run, tail
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.host.settings import PROJECT


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "work.log"


def ended(pid: int) -> bool:
    """Return whether a process ends within ten seconds."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def output(log: Path) -> str:
    """Return what the programs of a log printed, without the command lines."""
    return without_headings(log.read_text())


def written(path: Path) -> str:
    """Wait for another process to write a file, and return its text."""
    for _ in range(1200):
        if path.exists() and path.read_text().endswith("\n"):
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


class TestOutput:
    def test_stdout_and_stderr_go_to_the_log(self, log: Path) -> None:
        run(["sh", "-c", "echo out; echo err >&2"], log=log, doing="work")
        assert output(log) == "out\nerr\n"

    def test_log_is_appended_to(self, log: Path) -> None:
        run(["echo", "one"], log=log, doing="work")
        run(["echo", "two"], log=log, doing="work")
        assert output(log) == "one\ntwo\n"

    def test_stdout_can_have_its_own_file(self, log: Path, tmp_path: Path) -> None:
        answer = tmp_path / "answer"
        run(["sh", "-c", "echo out; echo err >&2"], log=log, doing="work", stdout=answer)
        assert (answer.read_text(), output(log)) == ("out\n", "err\n")

    def test_stdin_is_empty(self, log: Path) -> None:
        run(["cat"], log=log, doing="work")
        assert output(log) == ""

    def test_given_variables_extend_the_environment(
        self, log: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OURS", "ours")
        monkeypatch.setenv("BOTH", "ours")
        run(["env"], log=log, doing="work", env={"GIVEN": "given", "BOTH": "given"})
        lines = log.read_text().splitlines()
        assert {"OURS=ours", "GIVEN=given", "BOTH=given"} <= set(lines)

    def test_words_are_not_split_or_expanded(self, log: Path) -> None:
        run(["printf", "%s|", "a b", "$HOME", "*", "'"], log=log, doing="work")
        assert output(log) == "a b|$HOME|*|'|"


class TestShownCommand:
    def test_first_line_of_the_log_can_be_pasted(self, log: Path) -> None:
        argv = ["printf", "%s|", "a b", "$HOME", "*", "'", "a\nb\\c\x1b'"]
        run(argv, log=log, doing="work", env={"A": "of ours"})
        first, *printed = log.read_text().splitlines()
        assert first.startswith("$ env 'A=of ours' printf ")
        again = subprocess.run(["bash", "-c", first.removeprefix("$ ")], capture_output=True)
        assert again.stdout.decode().splitlines() == printed
        assert again.stdout == b"a b|$HOME|*|'|a\nb\\c\x1b'|"

    def test_every_command_is_in_the_log(self, log: Path) -> None:
        run(["echo", "one"], log=log, doing="work")
        run(["echo", "two"], log=log, doing="work")
        assert log.read_text() == "$ echo one\none\n$ echo two\ntwo\n"

    def test_secrets_are_hidden(self, log: Path) -> None:
        run(["true", "https://me:secret@host/x?private_token=t"], log=log, doing="work")
        assert log.read_text() == "$ true 'https://***@host/x?private_token=***'\n"

    def test_failure_does_not_quote_the_command(self, log: Path) -> None:
        with pytest.raises(Failure) as caught:
            run(["sh", "-c", "exit 3"], log=log, doing="making a thing")
        assert str(caught.value) == f"making a thing: sh ended with exit code 3\n\n  log: {log}"

    def test_failure_does_not_quote_an_earlier_command(self, log: Path) -> None:
        run(["echo", "No space left on device"], log=log, doing="work")
        with pytest.raises(Failure) as caught:
            run(["sh", "-c", "echo mine; exit 3"], log=log, doing="work")
        assert caught.value.what.splitlines()[1:] == ["    mine"]
        assert caught.value.hint == ""

    def test_verbose_prints_command_time_and_duration(
        self, log: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "blockyard")
        with pytest.raises(Failure):
            run(["sh", "-c", "exit 3"], log=log, doing="work")
        start, end = caplog.messages
        assert start == "$ sh -c 'exit 3'"
        assert re.fullmatch(r"sh: \d+\.\d\d s, exit code 3", end)

    def test_verbose_prints_what_runs_in_the_sandbox(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "blockyard")
        argv = Sandbox(Path("/nowhere"), supervised=True).argv(["make", "-j2", "a b"])
        caplog.clear()
        commands.Timed(argv).finish(-9)
        start, end = caplog.messages
        assert start == "$ make -j2 'a b'  # in the sandbox"
        assert re.fullmatch(r"make: \d+\.\d\d s, signal SIGKILL", end)


class TestFailure:
    def test_message_has_task_exit_code_output_and_log(self, log: Path) -> None:
        with pytest.raises(Failure) as caught:
            run(["sh", "-c", "echo the reason; exit 3"], log=log, doing="making a thing")
        assert str(caught.value) == (
            f"making a thing: sh ended with exit code 3\n    the reason\n  log: {log}"
        )

    def test_end_of_the_log_is_quoted(self, log: Path) -> None:
        with pytest.raises(Failure) as caught:
            run(["sh", "-c", "seq 1000; exit 1"], log=log, doing="work")
        quoted = caught.value.what.splitlines()[1:]
        assert quoted == [f"    {n}" for n in range(1001 - TAIL_LINES, 1001)]

    def test_signal_is_named(self, log: Path) -> None:
        with pytest.raises(Failure, match="sh ended with signal SIGSEGV"):
            run(["sh", "-c", "kill -SEGV $$"], log=log, doing="work")

    def test_missing_program_is_a_failure(self, log: Path) -> None:
        with pytest.raises(Failure, match="the program no-such-program is not installed"):
            run(["no-such-program"], log=log, doing="work")

    def test_file_that_is_not_executable_is_a_failure(self, log: Path, tmp_path: Path) -> None:
        (tmp_path / "data").touch(0o644)
        with pytest.raises(Failure, match="data"):
            run([str(tmp_path / "data")], log=log, doing="work")

    @pytest.mark.parametrize(
        ("line", "hint"),
        [
            ("cp: error writing 'x': No space left on device", "the disk is full"),
            ("W: Temporary failure resolving 'mirror.example'", "host name not resolved"),
            ("E: Could not connect to mirror.example:80", "mirror does not answer"),
            (
                "bwrap: setting up uid map: Permission denied",
                "user namespaces are not allowed here",
            ),
        ],
    )
    def test_known_cause_becomes_the_hint(self, log: Path, line: str, hint: str) -> None:
        with pytest.raises(Failure) as caught:
            run(["sh", "-c", 'echo "$0"; exit 1', line], log=log, doing="work")
        assert hint in caught.value.hint

    @pytest.mark.parametrize("line", ["Connection refused", "x.c:1:1: error: EXTRA_CFLAGS"])
    def test_hint_of_the_caller_wins_over_guesses(self, log: Path, line: str) -> None:
        with pytest.raises(Failure) as caught:
            run(["sh", "-c", 'echo "$0"; exit 1', line], log=log, doing="x", hint="mine")
        assert caught.value.hint == "mine"

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("cp: error writing 'x': No space left on device", "the disk is full"),
            ("LLVM ERROR: out of memory", "it took more than 8000 MiB of memory"),
            ("sh: fork: retry: Resource temporarily unavailable", "more than 900 processes"),
            ("ld: out/x.o: File too large", "it wrote a file of more than 700 MiB"),
            ("make: *** [Makefile:1: x.o] Killed", "memory may have run out"),
        ],
    )
    def test_limit_wins_over_the_hint_of_the_caller(self, log: Path, line: str, words: str) -> None:
        limits = Limits(memory_mib=8000, processes=900, file_mib=700)
        script = ["sh", "-c", 'echo "$0"; exit 1', line]
        with pytest.raises(Failure) as caught:
            run(script, log=log, doing="x", hint="mine", limits=limits)
        assert words in caught.value.hint

    def test_timeout_wins_over_the_hint_of_the_caller(self, log: Path) -> None:
        with pytest.raises(Failure) as caught:
            run(["sleep", "60"], log=log, doing="x", hint="mine", limits=Limits(time_s=0.1))
        assert "x: no end after 0 s" in caught.value.what
        assert "build_timeout_s" in caught.value.hint

    def test_full_tmpfs_of_a_sandbox_is_not_a_full_disk(self, log: Path) -> None:
        line = "as: /tmp/x.s: No space left on device"
        hint = causes.advice(line, 1, log, Limits(tmpfs_mib=64), "", offline=True, hint="mine")
        assert "its /tmp holds 64 MiB" in hint
        assert "the disk is full" not in hint


class TestProcessGroup:
    def test_timeout_kills_the_whole_group(self, log: Path, tmp_path: Path) -> None:
        script = f"sleep 600 & echo $! > {tmp_path}/pid; wait"
        with pytest.raises(Failure, match="work: no end after 2 s"):
            run(["sh", "-c", script], log=log, doing="work", timeout_s=2)
        assert ended(int(written(tmp_path / "pid")))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_interrupt_allows_cleanup_and_kills_the_whole_group(
        self, tmp_path: Path, number: int
    ) -> None:
        """Also a process that ignores SIGTERM, and one whose parent has already exited."""
        work = (
            f"trap 'touch {tmp_path}/cleaned; exit 1' TERM\n"
            f"sh -c \"trap '' TERM; echo \\$\\$ > {tmp_path}/stubborn; sleep 30; sleep 30\" &\n"
            f"sleep 600 & echo $! > {tmp_path}/pid; wait"
        )
        script = (
            "import signal, sys; from pathlib import Path\n"
            "from blockyard.kernel.host.process import run\n"
            "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
            "run(['sh', '-c', sys.argv[1]], log=Path(sys.argv[2]), doing='work')\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, work, str(tmp_path / "log")],
            cwd=PROJECT,
            stderr=subprocess.DEVNULL,
        )
        pids = [int(written(tmp_path / name)) for name in ("pid", "stubborn")]
        process.send_signal(number)
        assert process.wait(60) != 0
        assert (tmp_path / "cleaned").exists()
        assert [ended(pid) for pid in pids] == [True, True]


class TestTail:
    def test_missing_log_is_empty(self, tmp_path: Path) -> None:
        assert tail(tmp_path / "none") == ""

    def test_invalid_utf8_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(b"\xff\n")
        assert tail(tmp_path / "log") == "    \ufffd"
