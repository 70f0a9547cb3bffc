# SPDX-License-Identifier: GPL-2.0-or-later
"""Both consoles of a real guest keep the same promises."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from images.console import Console
from images.errors import CommandFailed, CommandTimedOut
from images.machine import Machine
from kernel.host.errors import Failed

ALL_BYTES = bytes(range(256))
FIVE_MB = random.Random(5).randbytes(5_000_000)


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("nonesuch", 127)]
)
def test_exit_code(console: Console, script: str, code: int) -> None:
    assert console.run(script).exit_code == code


def test_output_and_errors_in_their_order(console: Console) -> None:
    assert console.run("echo one; echo two >&2; echo three").data == b"one\ntwo\nthree\n"


def test_every_byte_comes_as_it_was(console: Console) -> None:
    octal = "".join(f"\\{value:03o}" for value in range(256))
    assert console.run(f"printf '{octal}'").data == ALL_BYTES


def test_every_byte_goes_as_it_was(console: Console) -> None:
    assert console.run("cat", stdin=ALL_BYTES).data == ALL_BYTES


def test_a_script_of_a_mebibyte(console: Console) -> None:
    text = "0123456789abcdef" * 65536
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert console.run(f"printf %s {text} | sha256sum").output.split() == [digest, "-"]


def test_sixteen_mebibytes_of_output(console: Console) -> None:
    assert console.run("head -c 16777216 /dev/zero").data == bytes(1 << 24)


def test_a_file_both_ways(console: Console, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(FIVE_MB)
    console.put(tmp_path / "data", "/tmp/a file")
    assert console.get("/tmp/a file") == FIVE_MB
    console.check("rm '/tmp/a file'")


def test_a_file_that_is_not_there(console: Console) -> None:
    with pytest.raises(Failed, match="No such file"):
        console.get("/tmp/none")


def test_a_time_out_is_told_and_the_console_goes_on(console: Console) -> None:
    with pytest.raises(CommandTimedOut, match="no end after"):
        console.run("echo begun; sleep 3600", timeout_s=0.5)
    assert not console.dead
    assert console.run("echo next").data == b"next\n"


def test_a_time_out_carries_the_kernel_log(console: Console) -> None:
    console.run("echo '<6>blockyard: before the time-out' > /dev/kmsg; sleep 0.5")
    with pytest.raises(CommandTimedOut) as caught:
        console.run("sleep 3600", timeout_s=0.5)
    assert "before the time-out" in caught.value.kernel_log


def test_a_command_that_closes_its_output(console: Console) -> None:
    result = console.run("echo before; exec >&- 2>&-; sleep 0.2; exit 5")
    assert (result.exit_code, result.data) == (5, b"before\n")


def test_a_background_process_is_not_waited_for(console: Console) -> None:
    pid = int(console.run("sleep 3600 & echo $!").data)
    console.check(f"kill {pid}")


def test_a_failure_in_the_middle_of_a_check(console: Console) -> None:
    with pytest.raises(CommandFailed, match="exit code 1"):
        console.check("false | true\necho never")


def test_many_commands(console: Console) -> None:
    assert [console.run(f"echo {n}").output for n in range(50)] == [f"{n}\n" for n in range(50)]


def test_both_reach_the_same_guest(shared_guest: Machine) -> None:
    shared_guest.console("serial").check("echo told > /run/word")
    assert shared_guest.console("ssh").check("cat /run/word; rm /run/word") == "told\n"


def test_the_kernel_log_has_no_frames(shared_guest: Machine) -> None:
    shared_guest.serial.check("true")
    log = shared_guest.log.text()
    assert "Linux version" in log
    assert "\x1e" not in log
