# SPDX-License-Identifier: GPL-2.0-or-later
"""The commands as a user types them; nothing here builds or boots."""

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


class TestChosen:
    def test_nothing_means_all(self) -> None:
        assert parse_names("console", "", CONSOLES) == CONSOLES

    @pytest.mark.parametrize(
        "text", ["ssh,serial", " ssh , serial ", "ssh,serial,ssh", ",ssh,serial"]
    )
    def test_names_in_the_users_order_and_once(self, text: str) -> None:
        assert parse_names("console", text, CONSOLES) == ("ssh", "serial")

    def test_one_wrong_name_among_good_ones(self) -> None:
        with pytest.raises(UsageError, match="unknown console 'shh'") as caught:
            parse_names("console", "serial,shh", CONSOLES)
        assert "ssh" in caught.value.hint

    @pytest.mark.parametrize("text", [",", " ", " , "])
    def test_a_choice_of_nothing(self, text: str) -> None:
        with pytest.raises(UsageError, match="no console in"):
            parse_names("console", text, CONSOLES)


def slots_without_hardware(ids: list[str]) -> set[str]:
    """Driver and console of each test; which topology it asks for may follow."""
    slots = [one.rpartition("[")[2].rstrip("]") for one in ids]
    return {"-".join(slot.split("-")[:2]) for slot in slots}


class TestLists:
    def test_tasks(self, tmp_path: Path) -> None:
        """From any directory."""
        done = inv("--list", cwd=tmp_path)
        assert done.returncode == 0
        words = done.stdout.split()
        assert {"test", "check", "build", "boot"} <= set(words)

    def test_kernels_of_an_empty_cache(self, home: Path) -> None:
        """Nothing is fetched or made for it."""
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
        assert slots_without_hardware(ids) == {
            f"{driver}-{console}"
            for driver in ("null_blk", "nvme", "rnull")
            for console in ("serial", "ssh")
        }

    def test_tests_of_a_choice(self) -> None:
        done = inv(
            "test", "--list", "--driver", "nvme", "--console", "ssh", "--suite", "module,nvme"
        )
        ids = done.stdout.splitlines()
        assert {one.partition("/")[0] for one in ids} == {"module", "nvme"}
        assert slots_without_hardware(ids) == {"nvme-ssh"}

    def test_the_word_for_two_consoles(self) -> None:
        done = inv("test", "--list", "--driver", "nvme", "--console", "both", "-k", "identify")
        assert slots_without_hardware(done.stdout.splitlines()) == {"nvme-serial", "nvme-ssh"}

    def test_a_reader_that_has_seen_enough(self) -> None:
        """It ends as other programs do, and never as if all were well."""
        command = f"set -o pipefail; {PROJECT}/inv test --suite all --list | head -n 1"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")

    def test_a_series_is_listed_and_nothing_applied(self, home: Path) -> None:
        path = PROJECT / "tests/unit/data/series/reply-that-fits.mbox"
        lines = inv("series", str(path)).stdout.splitlines()
        assert [line.split()[0] for line in lines[1:]] == ["1/2", "2/2", "left"]
        found = json.loads(inv("series", str(path), "--json").stdout)
        assert [patch["number"] for patch in found["patches"]] == [1, 2]
        assert [one["author"] for one in found["omitted"]] == ["Rob Reviewer"]
        assert list(home.iterdir()) == []

    def test_a_series_on_a_pipe(self) -> None:
        path = PROJECT / "tests/unit/data/series/thread.mbox.gz"
        command = f"{PROJECT}/inv series <(cat {path})"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)
        assert done.stdout.splitlines()[1:] == [
            "  1/3 disk: spell three (Ann Author)",
            "  2/3 disk: spell ten (Ann Author)",
            "  3/3 disk: spell seventeen (Ann Author)",
        ]

    def test_a_list_leaves_nothing(self, home: Path) -> None:
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
            (["test", "--guests", "-3"], "--guests takes a number from 1 on", "-3"),
            (["build", "--", "-k", "size"], "build takes no words after --", "-k size"),
            (
                ["dev.mutants", "--write", "--only", "zone"],
                "--write needs all mutants and suites",
                "--output",
            ),
            (["kernel.fetch", "7.3,7.33"], "unknown kernel '7.33'", "7.3"),
            (["kernel.update"], "no kernel was fetched yet", "kernel.list"),
            (["kernel.update", "--kernel", "7.3"], "kernel 7.3 was never fetched", "kernel.fetch"),
            (["cache.gc", "--days", "x"], "--days 'x' is no number", "30"),
            (["cache.gc", "--max-gb", "-1"], "--max-gb '-1' is no number", "0.5"),
            (["kernel.diff", "7.3", "7.33"], "unknown kernel '7.33'", ".config"),
            (["series", "/nowhere/x.mbox"], "no such patch series", "/nowhere/x.mbox"),
            (["build", "--series-version", "two"], "invalid --series-version 'two'", "number"),
            (["kernel.diff", "7.3:debgu", "7.3"], "unknown variant 'debgu'", "debug"),
        ],
    )
    def test_one_plain_message_and_exit_code_2(
        self, home: Path, arguments: list[str], message: str, near: str
    ) -> None:
        done = inv(*arguments)
        assert done.returncode == 2
        assert [message in line for line in done.stderr.splitlines() if "error: " in line] == [True]
        assert near in done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        assert not (home / "results").exists()

    @pytest.mark.parametrize("console", ["serial,ssh", ""])
    def test_a_guest_is_entered_by_one_console(
        self, monkeypatch: pytest.MonkeyPatch, console: str
    ) -> None:
        def ready(choice: KernelSpec, accel: str) -> BootEnv:
            raise AssertionError("it would have been booted")

        monkeypatch.setattr(boot_env, "ready", ready)
        with pytest.raises(UsageError, match="console"):
            shell.boot(KernelSpec(), "true", console, "auto", 60.0, shell.Wanted())


class TestBeforeTheCommand:
    """invoke's own options and files, of which ours are a few."""

    @pytest.mark.parametrize(
        ("words", "message"),
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
    def test_refused(self, words: list[str], message: str) -> None:
        done = inv(*words)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr

    @pytest.mark.parametrize("task", ["series", "init", "kernel.explain", "test"])
    def test_help_behind_the_command(self, task: str) -> None:
        assert inv(task, "--help").stdout == inv("--help", task).stdout

    def test_a_stderr_that_is_full(self) -> None:
        with open("/dev/full", "wb") as full:
            done = subprocess.run([str(PROJECT / "inv"), "nope"], stderr=full, timeout=300)
        assert done.returncode == 2

    def test_settings_of_invoke_are_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / ".invoke.py").write_text("raise SystemExit(7)\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert inv("--list").returncode == 0


class TestBlocked:
    """For how long a command of `boot --run` may wait in the kernel."""

    def hangs(self, blocked_s: float) -> CommandHung:
        def run(request: Request) -> Iterator[bytes]:
            yield request.begin() + request.blocked(24_000) + request.blocked(61_000)

        agent = FakeAgent(run, lambda request: [request.end(137, 0)])
        guest = Mock(console=lambda name: Console(name, SocketTransport(agent.host), FakeGuest()))
        wanted = shell.Wanted(blocked_s=blocked_s)
        try:
            with pytest.raises(CommandHung) as caught:
                shell.run_command(guest, "x", "serial", 6000, b"", wanted)
        finally:
            agent.close()
        return caught.value

    def test_by_default_as_elsewhere(self) -> None:
        assert shell.Wanted().blocked_s == BLOCKED_S
        assert inspect.signature(guests.boot.body).parameters["blocked"].default == BLOCKED_S
        assert "for 24 s" in self.hangs(BLOCKED_S).what

    def test_the_option_is_passed_on_and_named(self) -> None:
        hung = self.hangs(60.0)
        assert "for 61 s" in hung.what
        assert "--blocked SECONDS" in hung.hint

    def test_without_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def run(request: Request) -> Iterator[bytes]:
            yield request.begin() + request.blocked(10**9) + request.end(3, 0)

        agent = FakeAgent(run)
        guest = Mock(console=lambda name: Console(name, SocketTransport(agent.host), FakeGuest()))
        monkeypatch.setattr(shell, "pass_on", Mock())
        wanted = shell.Wanted(blocked_s=0)
        assert shell.run_command(guest, "x", "serial", 6000, b"", wanted) == 3
        agent.close()

    def test_less_than_nothing(self) -> None:
        wanted = shell.Wanted(blocked_s=-1)
        with pytest.raises(UsageError, match="invalid --blocked -1: expected"):
            shell.boot(KernelSpec(), "true", "serial", "auto", 60.0, wanted)
