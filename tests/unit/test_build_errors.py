# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors that a message quotes from the log of a failed build.

`data/build_errors` has logs of real builds whose modules and generators were broken on purpose.
"""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from blockyard.kernel.build import errors
from blockyard.kernel.build.errors import explainer, problems, read
from blockyard.kernel.host import causes
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import run

LOGS = Path(__file__).parent / "data" / "build_errors"
NAMES = {"/mnt/module/": "/home/me/mine/", "/mnt/src/": ""}


@pytest.mark.parametrize("log", sorted(LOGS.glob("*.log")), ids=lambda path: path.stem)
def test_golden_logs(log: Path) -> None:
    expected = log.with_suffix(".txt").read_text().rstrip("\n")
    assert explainer(NAMES)(log, 0) == expected
    assert len(expected.splitlines()) <= errors.MAX_LINES + 1


def heads(*lines: str) -> list[str]:
    return [problem.lines[problem.at] for problem in problems(lines)]


@pytest.mark.parametrize(
    "line",
    [
        "/mnt/src/drivers/x.c:3:5: error: expected ';'",
        "./include/x.h:3: fatal error: x: No such file or directory",
        "x.c:5:1: internal compiler error: Segmentation fault",
        "error[E0308]: mismatched types",
        "error: cannot find macro `x` in this scope",
        "clang: error: unknown argument: '-fnothing'",
        "clang-19: error: no input files",
        "ld.lld: error: undefined symbol: x",
        "vmlinux.o: error: objtool: x+0x1: unsupported",
        'ERROR: modpost: "x" [y.ko] undefined!',
        "drivers/block/Kconfig:12: syntax error",
        'drivers/block/Kconfig:12: can\'t open file "x"',
        "bash: line 3: bison: command not found",
        "/bin/sh: 1: flex: not found",
        "/usr/bin/env: 'python3': No such file or directory",
        "make[2]: bc: No such file or directory",
        "make[3]: *** No rule to make target 'x.o', needed by 'y'.  Stop.",
        "Makefile:7: *** missing separator.  Stop.",
        "/bin/sh: line 1: 4711 Killed   clang -c x.c",
        "error: rustc failed: process didn't exit successfully (signal: 9, SIGKILL: kill)",
        "memory allocation of 100368 bytes failed",
        "fatal error: error writing to x.s: No space left on device",
    ],
)
def test_error_is_found_among_progress_lines(line: str) -> None:
    others = ["  CC [M]  a.o", "a.c:1:1: warning: unused", "  1 | int a;", "  LD      b.o"]
    assert heads(*others, line, *others) == [line]


@pytest.mark.parametrize(
    "line",
    [
        "  CC      drivers/base/error: .o",
        "make[2]: *** Waiting for unfinished jobs....",
        "error: aborting due to 2 previous errors",
        "error: could not compile `x`",
        "cc1: all warnings being treated as errors",
        "x.c:1:1: warning: error: of a macro",
        "Kconfig:3:warning: x",
        "2 errors generated.",
        "ld: warning: x.o: missing .note.GNU-stack section",
        "ls: cannot access 'Killed': No such file or directory",
    ],
)
def test_lines_that_are_not_errors(line: str) -> None:
    assert heads(line) == []


def test_first_error_is_found_in_a_long_log() -> None:
    noise = [f"  CC      drivers/a{number}.o" for number in range(5000)]
    log = ["x.c:1:2: error: the first", *noise, "make: *** [Makefile:248: all] Error 2"]
    assert heads(*log) == ["x.c:1:2: error: the first"]


def test_lines_of_parallel_jobs_are_removed_from_an_error() -> None:
    log = [
        "x.c:1:2: error: bad",
        "  CC      y.o",
        "    1 | int x",
        "  LD      z.o",
        "      |     ^",
    ]
    (problem,) = problems(log)
    assert problem.lines == ["x.c:1:2: error: bad", "    1 | int x", "      |     ^"]


def test_repeated_error_is_shown_once_with_a_count() -> None:
    log = ["In file included from a.c:1:", "x.h:1:2: error: bad"]
    shown = errors.shown(problems(log * 300), {})
    assert shown == "    In file included from a.c:1:\n    x.h:1:2: error: bad (300 times)"


def test_sandbox_paths_become_user_paths() -> None:
    names = {"/mnt/src/": "/home/me/linux/", "/mnt/module/": "/home/me/mine/"}
    log = ["/mnt/src/block/x.c:1:2: error: a", "/mnt/module/y.c:3:4: error: b"]
    shown = errors.shown(problems(log), names)
    assert shown == (
        "    /home/me/linux/block/x.c:1:2: error: a\n    /home/me/mine/y.c:3:4: error: b"
    )


def test_many_errors_are_counted() -> None:
    all_problems = problems(f"f{number}.c:1:1: error: bad" for number in range(500))
    *lines, last = errors.shown(all_problems, {}).splitlines()
    assert (len(lines), last) == (errors.MAX_LINES, "    and 480 more errors")


class TestLogs:
    def test_huge_log_is_read_from_its_end(self, tmp_path: Path) -> None:
        with open(tmp_path / "log", "wb") as file:
            file.truncate(50 << 30)
            file.seek(0, 2)
            file.write(b"\nx.c:1:2: error: bad\n" + b"yes " * 1_000_000 + b"\n")
        tracemalloc.start()
        started = time.process_time()
        shown = explainer({})(tmp_path / "log", 0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert shown == "    x.c:1:2: error: bad"
        assert time.process_time() - started < 10
        assert peak < 32 << 20

    def test_errors_of_an_earlier_build_are_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_text("x.c:1:2: error: old\n")
        with pytest.raises(Failure) as caught:
            run(
                ["sh", "-c", "echo 'y.c:3:4: error: new'; exit 2"],
                log=tmp_path / "log",
                doing="building",
                explain=explainer({}),
            )
        assert caught.value.what == ("building: sh ended with exit code 2\n    y.c:3:4: error: new")

    def test_end_of_the_log_is_quoted_if_no_error_is_found(self, tmp_path: Path) -> None:
        with pytest.raises(Failure, match="ended with exit code 3\n    odd output"):
            run(
                ["sh", "-c", "echo odd output; exit 3"],
                log=tmp_path / "log",
                doing="building",
                explain=explainer({}),
            )

    @pytest.mark.parametrize(
        ("line", "advice"),
        [
            ("cc: No space left on device", causes.FULL),
            ("cc: Disk quota exceeded", causes.FULL),
            ("memory allocation of 100368 bytes failed", causes.MEMORY),
            ("make[2]: *** [Makefile:1: x.o] Killed", causes.MEMORY),
        ],
    )
    def test_advice_is_given_once(self, tmp_path: Path, line: str, advice: str) -> None:
        """Also if hundreds of lines follow the error."""
        script = 'echo "$0"; seq 500; exit 1'
        with pytest.raises(Failure) as caught:
            run(
                ["sh", "-c", script, line],
                log=tmp_path / "log",
                doing="building",
                explain=explainer({}),
            )
        assert caught.value.hint == advice
        assert str(caught.value).count(advice) == 1

    def test_missing_log(self, tmp_path: Path) -> None:
        assert explainer({})(tmp_path / "log", 0) == ""

    @pytest.mark.parametrize(
        "line",
        [
            "a:" * 500,
            "x.c:1:1: error: " + "Killed " * 200,
            "sh: " * 300,
            "In file included from " + "x:1" * 300,
            " " * 999 + "x",
            "Kconfig" * 140,
            "make: *** [" + "] " * 400,
            "ld" * 500,
            "\t" * 1000,
            "thread '" * 120,
        ],
        ids=lambda line: line[:8],
    )
    def test_hostile_lines_are_read_in_linear_time(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "log").write_text(f"{line}\n" * 2000)
        started = time.process_time()
        list(problems(read(tmp_path / "log")))
        assert time.process_time() - started < 5
