# SPDX-License-Identifier: GPL-2.0-or-later
"""The real guest agent, compiled for the host: unless it is PID 1, it serves stdin and stdout."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.images.console.console import Console
from blockyard.images.console.serial import SocketTransport
from blockyard.images.errors import CommandFailed, CommandTimedOut
from blockyard.images.files import GUEST_SOURCES, guest_flags
from blockyard.tests.unit.fake_agent import FakeGuest

ALL_BYTES = bytes(range(256))


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("this host has no C compiler (cc)")
    program = tmp_path_factory.mktemp("agent") / "init"
    sources = [str(source) for source in sorted(GUEST_SOURCES.glob("*.c"))]
    flags = ["-O1", "-Wall", "-Wextra", *guest_flags()]
    subprocess.run([compiler, *flags, "-o", program, *sources], check=True)
    return program


class Interrupted(Exception):
    """Raised by a test's watch in place of KeyboardInterrupt."""


class Connection:
    """A running agent and a console to it."""

    def __init__(self, program: Path, scale: float = 1.0) -> None:
        ours, theirs = socket.socketpair()
        self.process = subprocess.Popen([program], stdin=theirs.fileno(), stdout=theirs.fileno())
        theirs.close()
        self.socket = ours
        self.interrupt = False
        self.console = Console("agent", SocketTransport(ours), FakeGuest(self._watch, scale))
        self.console.wait_ready(60)

    def _watch(self) -> None:
        if self.interrupt:
            raise Interrupted

    def close(self) -> None:
        self.console.close()
        self.process.wait(60)


@pytest.fixture
def connection(agent: Path) -> Iterator[Connection]:
    connection = Connection(agent)
    yield connection
    connection.close()


@pytest.fixture
def console(connection: Connection) -> Console:
    return connection.console


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


class TestScript:
    def test_stdout_and_stderr_keep_their_order(self, console: Console) -> None:
        result = console.run("echo one; echo two >&2; echo three")
        assert (result.exit_code, result.data) == (0, b"one\ntwo\nthree\n")

    @pytest.mark.parametrize(
        ("script", "code"),
        [
            ("exit 0", 0),
            ("exit 7", 7),
            ("false", 1),
            ("no-such-program", 127),
            ("kill -TERM $$", 128 + signal.SIGTERM),
            ("kill -KILL $$", 128 + signal.SIGKILL),
            ("sh -c 'kill -SEGV $$'", 128 + signal.SIGSEGV),
            ("if then", 2),
        ],
    )
    def test_exit_code(self, console: Console, script: str, code: int) -> None:
        assert console.run(script).exit_code == code

    def test_script_of_a_mebibyte(self, console: Console) -> None:
        word = "0123456789abcdef" * 65536
        assert console.run(f"text={word}\necho ${{#text}}").data == b"1048576\n"

    def test_quotes_newlines_and_other_alphabets(self, console: Console) -> None:
        script = "cat <<'END'\n'\"$HOME` \\ \u20ac\u4e2d\n\nEND\n"
        assert console.run(script).output == "'\"$HOME` \\ \u20ac\u4e2d\n\n"

    def test_empty_script_succeeds(self, console: Console) -> None:
        result = console.run("")
        assert (result.exit_code, result.data) == (0, b"")

    def test_each_script_is_a_new_shell(self, console: Console) -> None:
        console.run("export marked=yes; cd /; set -e")
        assert console.run("echo ${marked-no}; false; echo on").data == b"no\non\n"

    def test_many_scripts_in_a_row(self, console: Console) -> None:
        outputs = [console.run(f"echo {n}; exit {n % 4}") for n in range(100)]
        assert [result.data for result in outputs] == [b"%d\n" % n for n in range(100)]
        assert [result.exit_code for result in outputs] == [n % 4 for n in range(100)]


class TestLibrary:
    """Functions of lib.bash, which all scripts can use."""

    def test_wait_until_returns_when_the_condition_is_true(
        self, console: Console, tmp_path: Path
    ) -> None:
        console.check(f"{{ sleep 0.2; touch {tmp_path}/ready; }} > /dev/null 2>&1 &")
        console.wait_until(f"[ -e {tmp_path}/ready ]", 10)

    def test_wait_until_names_the_condition_that_stayed_false(self, console: Console) -> None:
        with pytest.raises(CommandFailed, match=r"not true within 1 s: \[ -e /nowhere \]"):
            console.wait_until("[ -e /nowhere ]", 1)

    def test_is_gone_of_an_ended_and_a_running_process(self, console: Console) -> None:
        script = "sleep 0 & wait $!; is_gone $! && ! is_gone $$ && echo both"
        assert console.check(script) == "both\n"

    @pytest.mark.parametrize(
        ("requests", "code", "output"),
        [(4, 0, ""), (5, 1, "5 requests have ended in 1 s")],
    )
    def test_progress_counts_requests_beyond_those_in_flight(
        self, console: Console, tmp_path: Path, requests: int, code: int, output: str
    ) -> None:
        stat = tmp_path / "stat"
        script = f"""
            echo 1 0 0 0 2 0 > {stat}
            count_requests {stat}
            echo 4 0 0 0 4 0 > {stat}
            progress {stat} $$ {requests} 1"""
        result = console.run(script)
        assert result.exit_code == code
        assert output in result.output

    def test_progress_ends_with_the_process(self, console: Console, tmp_path: Path) -> None:
        stat = tmp_path / "stat"
        stat.write_text("1 0 0 0 2 0\n")
        script = f"true & pid=$!; wait; count_requests {stat}; progress {stat} $pid 0 60"
        assert console.run(script).exit_code == 1


class TestBytes:
    def test_output_of_all_byte_values(self, console: Console) -> None:
        octal = "".join(f"\\{value:03o}" for value in range(256))
        assert console.run(f"printf '{octal}'").data == ALL_BYTES

    def test_input_and_output_of_all_byte_values(self, console: Console) -> None:
        assert console.run("cat", stdin=ALL_BYTES * 4).data == ALL_BYTES * 4

    def test_stdin_without_input_is_at_end_of_file(self, console: Console) -> None:
        assert console.run("cat; echo done").data == b"done\n"

    def test_unread_input_is_discarded(self, console: Console) -> None:
        assert console.run("exit 3", stdin=ALL_BYTES * 4096).exit_code == 3
        assert console.run("echo next").data == b"next\n"

    def test_input_and_output_of_four_mebibytes(self, console: Console) -> None:
        data = ALL_BYTES * (1 << 14)
        assert console.run("cat", stdin=data).data == data

    def test_put_and_get(self, console: Console, tmp_path: Path) -> None:
        data = ALL_BYTES * 999
        target = tmp_path / "it's a file"
        console.put(data, str(target))
        assert target.read_bytes() == data
        assert console.get(str(target)) == data

    def test_put_copies_a_file(self, console: Console, tmp_path: Path) -> None:
        (tmp_path / "from").write_bytes(ALL_BYTES)
        console.put(tmp_path / "from", str(tmp_path / "to"))
        assert (tmp_path / "to").read_bytes() == ALL_BYTES


class TestUnusualScripts:
    def test_script_goes_on_after_closing_its_output(
        self, console: Console, tmp_path: Path
    ) -> None:
        script = f"echo before; exec >&- 2>&-; sleep 0.1; touch {tmp_path}/after; exit 5"
        result = console.run(script)
        assert (result.exit_code, result.data) == (5, b"before\n")
        assert (tmp_path / "after").exists()

    def test_background_process_that_holds_the_output(self, console: Console) -> None:
        result = console.run("sleep 600 & echo $!")
        pid = int(result.data)
        try:
            assert running(pid)
            assert console.run("echo next").data == b"next\n"
        finally:
            os.kill(pid, signal.SIGKILL)

    def test_background_process_that_goes_on_writing(
        self, console: Console, tmp_path: Path
    ) -> None:
        pid_file = tmp_path / "pid"
        console.run(f"{{ while echo noise; do :; done; }} 2>/dev/null & echo $! > {pid_file}")
        pid = int(pid_file.read_text())
        try:
            assert console.run("echo next").data == b"next\n"
        finally:
            if running(pid):
                os.kill(pid, signal.SIGKILL)

    def test_printed_markers_are_output(self, console: Console) -> None:
        script = r"printf '\036BLOCKYARD 0 1 end 9 0\n'; exit 4"
        result = console.run(script)
        assert (result.exit_code, result.data) == (4, b"\x1eBLOCKYARD 0 1 end 9 0\n")


class TestTimeout:
    def test_timeout_kills_all_processes_of_the_script(
        self, connection: Connection, tmp_path: Path
    ) -> None:
        pid_file = tmp_path / "pid"
        with pytest.raises(CommandTimedOut):
            connection.console.run(f"sleep 600 & echo $! > {pid_file}; wait", timeout_s=1)
        pid = int(pid_file.read_text())
        for _ in range(600):
            if not running(pid):
                break
            time.sleep(0.05)
        assert not running(pid)

    def test_console_works_after_a_timeout(self, console: Console) -> None:
        with pytest.raises(CommandTimedOut):
            console.run("trap '' TERM INT; while :; do echo on; done", timeout_s=0.5)
        assert console.run("echo next").data == b"next\n"

    def test_timeout_kills_a_stopped_script(self, console: Console) -> None:
        with pytest.raises(CommandTimedOut):
            console.run("kill -STOP $$", timeout_s=0.5)
        assert console.run("echo next").data == b"next\n"


class TestAliveMarkers:
    def test_alive_markers_are_sent_while_a_script_is_silent(self, connection: Connection) -> None:
        connection.socket.setblocking(True)
        connection.socket.sendall(b"BLOCKYARD quiet 1 run 10 0\nsleep 600\n")
        answer = b""
        while answer.count(b"\x1eBLOCKYARD quiet 1 alive 0 ") < 2:
            answer += connection.socket.recv(4096)
        assert answer.startswith(b"\x1eBLOCKYARD quiet 1 begin\n")

    def test_dead_spare_shell_is_replaced(self, console: Console) -> None:
        console.run("kill -KILL $(pgrep --parent $PPID)")
        assert console.run("echo next").data == b"next\n"


class TestInterrupted:
    def test_next_command_kills_the_interrupted_one(self, connection: Connection) -> None:
        connection.interrupt = True
        with pytest.raises(Interrupted):
            connection.console.run("while :; do echo old; sleep 0.01; done")
        connection.interrupt = False
        assert connection.console.run("echo new").data == b"new\n"

    def test_truncated_request_is_not_run(self, connection: Connection) -> None:
        """Half a script can do anything: `rm -r /tmp/x` begins with `rm -r /`."""
        connection.socket.setblocking(True)
        connection.socket.sendall(b"BLOCKYARD cut 1 run 100 0\necho half\n")
        connection.socket.shutdown(socket.SHUT_WR)
        connection.socket.settimeout(60)
        answer = b""
        while data := connection.socket.recv(4096):
            answer += data
        assert answer == b""

    def test_end_of_connection_ends_script_and_agent(self, agent: Path, tmp_path: Path) -> None:
        connection = Connection(agent)
        connection.socket.setblocking(True)
        script = f"echo $$ > {tmp_path}/pid; sleep 600".encode()
        connection.socket.sendall(b"BLOCKYARD end 1 run %d 0\n%s" % (len(script), script))
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        connection.close()
        assert connection.process.returncode == 0
        pid = int((tmp_path / "pid").read_text())
        for _ in range(600):
            if not running(pid):
                break
            time.sleep(0.05)
        assert not running(pid)

    def test_noise_between_requests_is_ignored(self, connection: Connection) -> None:
        connection.socket.setblocking(True)
        connection.socket.sendall(b"\xff\x00noise\nBLOCKYARD\n" + b"x" * 200_000 + b"\n")
        assert connection.console.run("echo heard").data == b"heard\n"
