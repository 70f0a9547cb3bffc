# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands as a user types them; nothing here builds or boots."""

from __future__ import annotations

import inspect
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from blockyard.ci.cli import guests
from blockyard.ci.commands import shell
from blockyard.ci.run import boot_env
from blockyard.ci.run.selection import parse_names
from blockyard.images.console import CONSOLES
from blockyard.images.console.console import BLOCKED_S, Console
from blockyard.images.console.serial import SocketTransport
from blockyard.images.errors import CommandHung
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.unit.fake_agent import FakeAgent, FakeGuest, Request


def inv(*arguments: str, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROJECT / "inv"), *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


class TestParseNames:
    def test_empty_value_means_all_names(self) -> None:
        assert parse_names("console", "", CONSOLES) == CONSOLES

    @pytest.mark.parametrize(
        "text", ["ssh,serial", " ssh , serial ", "ssh,serial,ssh", ",ssh,serial"]
    )
    def test_names_keep_their_order_without_duplicates(self, text: str) -> None:
        assert parse_names("console", text, CONSOLES) == ("ssh", "serial")

    def test_unknown_name_among_known_ones_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="unknown console 'shh'") as caught:
            parse_names("console", "serial,shh", CONSOLES)
        assert "ssh" in caught.value.hint

    @pytest.mark.parametrize("text", [",", " ", " , "])
    def test_value_without_names_is_a_usage_error(self, text: str) -> None:
        with pytest.raises(UsageError, match="no console in"):
            parse_names("console", text, CONSOLES)


def slots_without_topology(ids: list[str]) -> set[str]:
    """Driver and console of each test, without the topology."""
    slots = [test.rpartition("[")[2].rstrip("]") for test in ids]
    return {"-".join(slot.split("-")[:2]) for slot in slots}


class TestLists:
    def test_commands(self, tmp_path: Path) -> None:
        """In any directory."""
        done = inv("--list", cwd=tmp_path)
        assert done.returncode == 0
        commands = done.stdout.split()
        assert {"test", "check", "build", "boot"} <= set(commands)

    def test_kernels_with_an_empty_cache(self, home: Path) -> None:
        """The command fetches and makes nothing."""
        done = inv("kernel.list")
        assert (done.returncode, done.stderr) == (0, "")
        assert "7.3-rc" in done.stdout
        assert "not fetched" in done.stdout
        assert list((home / "cache").glob("*/*")) == []

    def test_tests(self) -> None:
        done = inv("test", "--list")
        assert (done.returncode, done.stderr) == (0, "")
        ids = done.stdout.splitlines()
        assert "module/load_unload_cycles[null_blk-serial]" in ids
        assert len(set(ids)) == len(ids)
        assert slots_without_topology(ids) == {
            f"{driver}-{console}"
            for driver in ("null_blk", "nvme", "rnull")
            for console in ("serial", "ssh")
        }

    def test_tests_of_selected_drivers_consoles_and_suites(self) -> None:
        done = inv(
            "test", "--list", "--driver", "nvme", "--console", "ssh", "--suite", "module,nvme"
        )
        ids = done.stdout.splitlines()
        assert {test.partition("/")[0] for test in ids} == {"module", "nvme"}
        assert slots_without_topology(ids) == {"nvme-ssh"}

    def test_console_both_selects_two_consoles(self) -> None:
        done = inv("test", "--list", "--driver", "nvme", "--console", "both", "-k", "identify")
        assert slots_without_topology(done.stdout.splitlines()) == {"nvme-serial", "nvme-ssh"}

    def test_closed_pipe_ends_a_list_with_sigpipe(self) -> None:
        """The exit code is that of other programs, and not 0."""
        command = f"set -o pipefail; {PROJECT}/inv test --suite all --list | head -n 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")

    def test_series_is_listed_and_not_applied(self, home: Path) -> None:
        path = PROJECT / "tests/unit/data/series/reply-that-fits.mbox"
        lines = inv("series", str(path)).stdout.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["1/2", "2/2", "left"]
        series = json.loads(inv("series", str(path), "--json").stdout)
        assert [patch["number"] for patch in series["patches"]] == [1, 2]
        assert [message["author"] for message in series["omitted"]] == ["Rob Reviewer"]
        assert list(home.iterdir()) == []

    def test_series_is_read_from_a_pipe(self) -> None:
        path = PROJECT / "tests/unit/data/series/thread.mbox.gz"
        command = f"{PROJECT}/inv series <(cat {path})"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
        assert done.stdout.splitlines()[1:] == [
            "  1/3 disk: spell three (Ann Author)",
            "  2/3 disk: spell ten (Ann Author)",
            "  3/3 disk: spell seventeen (Ann Author)",
        ]

    def test_list_of_tests_writes_no_files(self, home: Path) -> None:
        assert inv("test", "--list", "--suite", "module").returncode == 0
        assert list(home.iterdir()) == []


class TestBadNames:
    @pytest.mark.parametrize(
        ("arguments", "message", "near"),
        [
            (["test", "--kernel", "7.33"], "unknown kernel '7.33'", "7.3"),
            (["test", "--driver", "nulblk"], "unknown driver 'nulblk'", "null_blk"),
            (["test", "--console", "serail"], "unknown console 'serail'", "serial"),
            (["test", "--suite", "modul"], "unknown suite 'modul'", "module"),
            (["test", "--accel", "kmv"], "unknown accelerator 'kmv'", "kvm"),
            (["build", "--kernel", "7.33"], "unknown kernel '7.33'", "7.3"),
            (["boot", "--kernel", "7.33"], "unknown kernel '7.33'", "7.3"),
            (["boot", "--console", "shh", "--run", "true"], "unknown console 'shh'", "ssh"),
            (["boot", "--accel", "tgc", "--run", "true"], "unknown accelerator 'tgc'", "tcg"),
            (["test", "-k", "no_such_test"], "no test matches", "--list"),
            (["test", "-k", "and and"], "does not understand -k 'and and'", ""),
            (["boot"], "a shell needs a terminal", "--run"),
            (["boot", "--timeout", "soon"], "invalid --timeout 'soon'", "a whole number"),
            (["test", "--guests", "-3"], "invalid --guests -3: expected 1 or more", "-3"),
            (["build", "--", "-k", "size"], "build takes no words after --", "-k size"),
            (
                ["dev.mutants", "--write", "--only", "zone"],
                "--write needs all mutants and suites",
                "--output",
            ),
            (["kernel.fetch", "7.3,7.33"], "unknown kernel '7.33'", "7.3"),
            (["kernel.update"], "no kernel was fetched yet", "kernel.list"),
            (["kernel.update", "--kernel", "7.3"], "kernel 7.3 was never fetched", "kernel.fetch"),
            (["cache.gc", "--days", "x"], "invalid --days 'x'", "30"),
            (["cache.gc", "--max-gb", "-1"], "invalid --max-gb '-1'", "0.5"),
            (["kernel.diff", "7.3", "7.33"], "unknown kernel '7.33'", ".config"),
            (["series", "/nowhere/x.mbox"], "no such patch series", "/nowhere/x.mbox"),
            (["build", "--series-version", "two"], "invalid --series-version 'two'", "number"),
            (["kernel.diff", "7.3:debgu", "7.3"], "unknown variant 'debgu'", "debug"),
        ],
    )
    def test_bad_name_is_a_usage_error_with_one_message(
        self, home: Path, arguments: list[str], message: str, near: str
    ) -> None:
        done = inv(*arguments)
        assert done.returncode == 2
        assert [message in line for line in done.stderr.splitlines() if "error: " in line] == [True]
        assert near in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert not (home / "results").exists()

    @pytest.mark.parametrize("console", ["serial,ssh", ""])
    def test_boot_takes_exactly_one_console(
        self, monkeypatch: pytest.MonkeyPatch, console: str
    ) -> None:
        def ready(choice: KernelSpec, accel: str) -> BootEnv:
            raise AssertionError("boot was called")

        monkeypatch.setattr(boot_env, "ready", ready)
        with pytest.raises(UsageError, match="console"):
            shell.boot(KernelSpec(), "true", console, "auto", 60.0, shell.GuestOptions())


class TestBeforeTheCommand:
    """Options before the command, and files that invoke would read."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["-f", "/dev/zero", "kernel.list"], "unknown option -f before the command"),
            (["-c", "foo", "kernel.list"], "unknown option -c before the command"),
            (["--print-completion-script=nosuch"], "unknown shell 'nosuch'"),
            (["nope"], "nope"),
            (["init", ""], "no folder given"),
            (["build", "--module", ","], "no path in"),
            (["init", "/proc/self"], "cannot read /proc/"),
        ],
    )
    def test_bad_input_is_a_usage_error(self, arguments: list[str], message: str) -> None:
        done = inv(*arguments)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr

    @pytest.mark.parametrize("task", ["series", "init", "kernel.explain", "test"])
    def test_help_before_and_after_the_command_is_the_same(self, task: str) -> None:
        assert inv(task, "--help").stdout == inv("--help", task).stdout

    def test_full_stderr_keeps_the_exit_code(self) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run([str(PROJECT / "inv"), "nope"], stderr=full, timeout=300)
        assert done.returncode == 2

    def test_invoke_configuration_files_are_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".invoke.py").write_text("raise SystemExit(7)\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert inv("--list").returncode == 0


class TestBlocked:
    """`boot --blocked`: how long a command may be blocked in the kernel."""

    def hangs(self, blocked_s: float) -> CommandHung:
        def run(request: Request) -> Iterator[bytes]:
            yield request.begin() + request.blocked(24_000) + request.blocked(61_000)

        agent = FakeAgent(run, lambda request: [request.end(137, 0)])
        guest = Mock(console=lambda name: Console(name, SocketTransport(agent.host), FakeGuest()))
        wanted = shell.GuestOptions(blocked_s=blocked_s)
        try:
            with pytest.raises(CommandHung) as caught:
                shell.run_command(guest, "x", "serial", 6000, b"", wanted)
        finally:
            agent.close()
        return caught.value

    def test_default_is_that_of_consoles(self) -> None:
        assert shell.GuestOptions().blocked_s == BLOCKED_S
        assert inspect.signature(guests.boot.body).parameters["blocked"].default == BLOCKED_S
        assert "for 24 s" in self.hangs(BLOCKED_S).what

    def test_option_is_passed_on_and_named_in_the_hint(self) -> None:
        hung = self.hangs(60.0)
        assert "for 61 s" in hung.what
        assert "--blocked SECONDS" in hung.hint

    def test_zero_means_no_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(request: Request) -> Iterator[bytes]:
            yield request.begin() + request.blocked(10**9) + request.end(3, 0)

        agent = FakeAgent(run)
        guest = Mock(console=lambda name: Console(name, SocketTransport(agent.host), FakeGuest()))
        monkeypatch.setattr(shell, "pass_on", Mock())
        wanted = shell.GuestOptions(blocked_s=0)
        assert shell.run_command(guest, "x", "serial", 6000, b"", wanted) == 3
        agent.close()

    def test_negative_value_is_a_usage_error(self) -> None:
        wanted = shell.GuestOptions(blocked_s=-1)
        with pytest.raises(UsageError, match="invalid --blocked -1: expected"):
            shell.boot(KernelSpec(), "true", "serial", "auto", 60.0, wanted)
