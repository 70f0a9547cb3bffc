# SPDX-License-Identifier: GPL-2.0-or-later
"""All kinds of console of a real guest behave the same."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest

from blockyard.images.console.console import Console
from blockyard.images.errors import CommandFailed, CommandTimedOut
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host.errors import Failure

ALL_BYTES = bytes(range(256))
RANDOM = random.Random(5).randbytes(1 << 22)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("nonesuch", 127)]
)
def test_exit_code_is_that_of_the_command(console: Console, script: str, code: int) -> None:
    assert console.run(script).exit_code == code


def test_output_and_errors_keep_their_order(console: Console) -> None:
    assert console.run("echo one; echo two >&2; echo three").data == b"one\ntwo\nthree\n"


def test_output_can_have_any_byte(console: Console) -> None:
    octal = "".join(f"\\{value:03o}" for value in range(256))
    assert console.run(f"printf '{octal}'").data == ALL_BYTES


def test_input_can_have_any_byte(console: Console) -> None:
    assert console.run("cat", stdin=ALL_BYTES).data == ALL_BYTES


def test_script_can_have_a_mebibyte(console: Console) -> None:
    text = "0123456789abcdef" * (1 << 16)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert console.run(f"printf %s {text} | sha256sum").output.split() == [digest, "-"]


def test_long_output_is_complete(console: Console, much: int) -> None:
    assert console.run(f"head -c {much} /dev/zero", 300).data == bytes(much)


def test_follow_yields_lines_as_they_are_printed(console: Console) -> None:
    with console.follow("for n in {1..5}; do echo line $n; sleep 0.2; done; exit 4") as running:
        started = time.monotonic()
        lines = running.lines()
        assert (next(lines), running.finished) == ("line 1", False)
        assert list(lines) == [f"line {n}" for n in range(2, 6)]
        assert time.monotonic() - started > 0.7
        assert running.result().exit_code == 4


def test_followed_command_is_killed_if_left_early(console: Console) -> None:
    with console.follow("echo $$; sleep 3600") as running:
        pid = int(next(running.lines()))
    assert console.run(f"kill -0 {pid}").exit_code == 1


def test_kernel_messages_do_not_mix_with_output(console: Console) -> None:
    script = "for n in {1..300}; do echo '<6>blockyard: noise' > /dev/kmsg; echo output $n; done"
    lines = console.run(script, 120).output.splitlines()
    assert lines == [f"output {n}" for n in range(1, 301)]


def test_ending_children_do_not_delay_the_heartbeat(console: Console) -> None:
    """The guest program gets a SIGCHLD for each orphan that ends."""
    console.check("for n in {1..15}; do (sleep 0.01 &); sleep 0.2; done", 60)
    assert b" alive " in console.last_bytes


def test_file_is_copied_to_the_guest_and_back(console: Console, much: int, tmp_path: Path) -> None:
    data = RANDOM[:much]
    (tmp_path / "data").write_bytes(data)
    console.put(tmp_path / "data", "/tmp/a file")
    assert console.get("/tmp/a file") == data
    console.check("rm '/tmp/a file'")


def test_missing_file_is_a_failure(console: Console) -> None:
    with pytest.raises(Failure, match="No such file"):
        console.get("/tmp/none")


def test_console_works_after_a_timeout(console: Console) -> None:
    with pytest.raises(CommandTimedOut, match="timed out after"):
        console.run("echo started; sleep 3600", timeout_s=0.5)
    assert not console.dead
    assert console.run("echo next").data == b"next\n"


def test_timeout_has_the_kernel_log(console: Console) -> None:
    console.run("echo '<6>blockyard: before the time-out' > /dev/kmsg; sleep 0.5")
    with pytest.raises(CommandTimedOut) as caught:
        console.run("sleep 3600", timeout_s=0.5)
    assert "before the time-out" in caught.value.kernel_log


def test_command_that_closes_its_output_returns_its_exit_code(console: Console) -> None:
    result = console.run("echo before; exec >&- 2>&-; sleep 0.2; exit 5")
    assert (result.exit_code, result.data) == (5, b"before\n")


def test_background_process_is_not_waited_for(console: Console) -> None:
    pid = int(console.run("sleep 3600 & echo $!").data)
    console.check(f"kill {pid}")


def test_check_fails_at_the_first_failing_command(console: Console) -> None:
    with pytest.raises(CommandFailed, match="exit code 1"):
        console.check("false | true\necho never")


def test_console_runs_many_commands(console: Console) -> None:
    assert [console.run(f"echo {n}").output for n in range(50)] == [f"{n}\n" for n in range(50)]


def test_both_consoles_reach_the_same_guest(shared_guest: Machine) -> None:
    shared_guest.console("serial").check("echo shared > /run/word")
    assert shared_guest.console("ssh").check("cat /run/word; rm /run/word") == "shared\n"


def test_kernel_log_has_no_frames_of_the_console(shared_guest: Machine) -> None:
    shared_guest.serial.check("true")
    log = shared_guest.log.text()
    assert "Linux version" in log
    assert "\x1e" not in log
