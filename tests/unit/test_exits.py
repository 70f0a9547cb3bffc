# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit codes of commands, and standard streams that are closed, full or without a reader."""

from __future__ import annotations

import errno
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from invoke.exceptions import Exit

from blockyard.ci.run import exits
from blockyard.images.errors import BootTimeout, CommandFailed, GuestPanicked
from blockyard.kernel.host import interrupts
from blockyard.kernel.host.errors import ExitCode, Failure, UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.modules.driver import LoadFailed
from blockyard.tests.harness.outcomes import Outcome
from blockyard.tests.unit.samples import result, run_of


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.fixture(autouse=True)
def restore_signals() -> object:
    before = {number: signal.getsignal(number) for number in (1, 2, 15)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class TestEach:
    @pytest.mark.parametrize(
        ("codes", "expected"),
        [
            ([0, 0], None),
            ([0, 125], 125),
            ([125, 1, 0], 1),
            ([2, 125], 2),
            ([1, 130, 0], 130),
        ],
    )
    def test_worst_exit_code_wins(self, codes: list[int], expected: int | None) -> None:
        done: list[int] = []

        def work(code: int) -> None:
            done.append(code)
            if code:
                raise Exit(code=code)

        works = [functools.partial(work, code) for code in codes]
        if expected is None:
            exits.each(works)
        else:
            with pytest.raises(Exit) as caught:
                exits.each(works)
            assert caught.value.code == expected
        assert done == codes[: codes.index(130) + 1 if 130 in codes else None]


class TestCodeOf:
    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (UsageError("bad \x1b[31m", hint="better"), 2, "error: bad \\x1b[31m\n  better\n"),
            (Failure("the build failed"), 125, "error: the build failed\n"),
            (LoadFailed("cannot load x"), 125, "error: cannot load x\n"),
            (GuestPanicked("the guest panicked"), 1, "error: the guest panicked\n"),
            (CommandFailed("exit code 3"), 1, "error: exit code 3\n"),
            (OSError(errno.ENOSPC, "full", "/x"), 125, "error: the disk is full (/x)\n"),
            (Exit(code=7), 7, ""),
            (Exit("failed: mypy", 1), 1, "failed: mypy\n"),
            (KeyboardInterrupt(), 130, "interrupted\n"),
        ],
    )
    def test_exit_code_and_message_of_an_exception(
        self, error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert exits.code_of(raising(error)) == code
        assert capsys.readouterr().err == message

    @pytest.mark.parametrize(
        "error", [ValueError("x"), BrokenPipeError(errno.EPIPE, "a socket"), RecursionError("x")]
    )
    def test_defect_keeps_its_traceback_and_stops_a_bisection(
        self, error: Exception, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert exits.code_of(raising(error)) == ExitCode.DEFECT > 127
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert "this is a defect of Blockyard" in err

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGTERM, 143)]
    )
    def test_exit_code_of_a_signal(self, number: signal.Signals, code: int) -> None:
        signal.signal(number, signal.SIG_DFL)  # in case these tests run under nohup
        assert exits.code_of(lambda: os.kill(os.getpid(), number)) == code

    def test_nohup_is_respected(self) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        assert exits.code_of(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0

    def test_held_block_finishes_before_a_signal_is_handled(self) -> None:
        done = []

        def work() -> None:
            with interrupts.held():
                os.kill(os.getpid(), signal.SIGTERM)
                done.append("saved")
            done.append("never")

        assert exits.code_of(work) == 143
        assert done == ["saved"]


COMMITS = {
    "good": "None",
    "build fails": "Failure('the build failed')",
    "boot fails": "BootTimeout('the guest did not come up')",
    "defect": "ValueError('x')",
}
BISECTED = """
import sys
from pathlib import Path
sys.path.insert(0, {project!r})
from blockyard.ci.run import exits
from blockyard.images.errors import BootTimeout
from blockyard.kernel.host.errors import Failure

def work():
    if error := eval({commits!r}[Path('state').read_text()]):
        raise error

sys.exit(exits.code_of(work))
"""


class TestBisection:
    """`git bisect run` with these exit codes."""

    def bisected(self, folder: Path, *states: str) -> subprocess.CompletedProcess[str]:
        """Result of a bisection over commits with these states; the first is good, the last bad."""

        def git(*arguments: str) -> subprocess.CompletedProcess[str]:
            who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
            return subprocess.run(
                ["git", *who, *arguments], cwd=folder, capture_output=True, text=True
            )

        script = folder.with_suffix(".py")
        script.write_text(BISECTED.format(project=str(PROJECT), commits=COMMITS))
        folder.mkdir()
        git("init", "--quiet")
        for number, state in enumerate(states):
            (folder / "state").write_text(state)
            git("add", "state")
            git("commit", "--quiet", "--allow-empty", "--message", f"{number} {state}")
        git("bisect", "start", "HEAD", f"HEAD~{len(states) - 1}")
        return git("bisect", "run", sys.executable, str(script))

    def test_commits_that_cannot_be_built_are_skipped(self, tmp_path: Path) -> None:
        states = ["good", "good", "build fails", "build fails", "good", "boot fails", "boot fails"]
        done = self.bisected(tmp_path / "tree", *states)
        assert done.returncode == 0, done.stderr
        assert "is the first bad commit" in done.stdout
        assert "    5 boot fails" in done.stdout

    def test_defect_ends_a_bisection_without_a_result(self, tmp_path: Path) -> None:
        done = self.bisected(
            tmp_path / "tree", "good", "good", "defect", "boot fails", "boot fails"
        )
        assert done.returncode != 0
        assert "first bad commit" not in done.stdout


class TestCodeOfRun:
    @pytest.mark.parametrize(
        ("outcomes", "booted", "code"),
        [
            (["pass", "skip"], True, 0),
            (["xfail", "pass"], True, 0),
            (["pass", "fail"], True, 1),
            (["crash", "lost"], True, 1),  # the guest booted before the driver crashed it
            (["crash", "timeout", "lost", "skip"], False, 125),
            (["skip", "skip"], False, 125),
            (["skip"], True, 125),
            ([], False, 125),
        ],
    )
    def test_exit_code_of_a_run(self, outcomes: list[Outcome], booted: bool, code: int) -> None:
        tests = [result(outcome, f"io/{n}") for n, outcome in enumerate(outcomes)]
        assert exits.of_run(run_of(*tests, booted=booted)) == code

    def test_boot_failure_in_untestable_has_exit_code_125(self) -> None:
        with pytest.raises(BootTimeout) as caught, exits.untestable():
            raise BootTimeout("the guest did not come up")
        assert caught.value.exit_code == 125
        assert BootTimeout.exit_code == 1


def inv(arguments: str, redirect: str, **environment: str) -> tuple[int, str]:
    """Exit code and stderr of a command with shell redirections."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROJECT}/inv {arguments} {redirect}"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    return done.returncode, done.stderr


class TestStreams:
    @pytest.mark.parametrize(
        ("redirect", "code", "message"),
        [
            (">&-", 0, ""),
            ("<&- >&- 2>&-", 0, ""),
            ("2>/dev/full", 0, ""),
            (
                ">/dev/full",
                125,
                "error: cannot write to standard output: No space left on device\n",
            ),
            ("| true", 141, ""),
        ],
    )
    @pytest.mark.parametrize(
        "command", ["kernel.list", "kernel.list --json", "--list", "test --list --suite module"]
    )
    def test_closed_full_and_broken_stdout(
        self, command: str, redirect: str, code: int, message: str
    ) -> None:
        assert inv(command, redirect) == (code, message)

    def test_unread_error_keeps_its_exit_code(self) -> None:
        assert inv("test --driver none", "2>&1 >/dev/null | true")[0] == 2
        assert inv("test --driver none", "2>/dev/full")[0] == 2
        assert inv("test --driver none", ">&- 2>&-")[0] == 2

    def test_letters_outside_the_locale_are_escaped(self) -> None:
        script = (
            "from blockyard.kernel.host import streams; streams.prepare(); print('\\u2192 \\udcff')"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=PROJECT,
            env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (0, "\\u2192 \\udcff\n"), done.stderr

    @pytest.mark.parametrize("arguments", ["--nonsense", "test --nonsense", "nonsuch", "test -k"])
    def test_unknown_words_are_usage_errors(self, arguments: str) -> None:
        code, err = inv(arguments, "")
        assert code == 2
        assert err.startswith("error: ")

    def test_failed_run_keeps_its_exit_code_on_a_broken_pipe(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from blockyard.kernel.host import streams

        def show() -> None:
            raise BrokenPipeError(errno.EPIPE, "no reader", streams.STDOUT)

        monkeypatch.setattr(streams, "silence", lambda stream: None)
        with pytest.raises(Exit) as caught:
            exits.end(1, show)
        assert caught.value.code == 1
        with pytest.raises(BrokenPipeError):
            exits.end(0, show)
