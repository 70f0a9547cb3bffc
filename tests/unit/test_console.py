# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command and its answer are framed, seen from the host."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from blockyard.images.console import result as output
from blockyard.images.console.console import GIVEN_UP, READY, Console
from blockyard.images.console.serial import SocketTransport
from blockyard.images.errors import (
    CommandFailed,
    CommandHung,
    CommandTimedOut,
    ConsoleLost,
    GuestPanicked,
)
from blockyard.kernel.host.errors import Failure
from blockyard.tests.unit.fake_agent import FakeAgent, FakeGuest, Reply, Request, silence, well

ALL_BYTES = bytes(range(256))
HASTE = 0.05  # a scale for tests that wait for a deadline: 1 s to begin, 0.25 s to be killed

Connect = Callable[..., Console]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """A console to a fake agent that has greeted."""
    agents: list[FakeAgent] = []

    def connect(
        run: Reply,
        kill: Reply = silence,
        *,
        watch: Callable[[], None] = well,
        scale: float = 1.0,
        guest: FakeGuest | None = None,
    ) -> Console:
        agents.append(FakeAgent(run, kill))
        transport = SocketTransport(agents[-1].host)
        console = Console("serial", transport, guest or FakeGuest(watch, scale))
        console.wait_ready(30)
        return console

    yield connect
    for agent in agents:
        agent.close()


def answering(output: bytes = b"", status: int = 0) -> Reply:
    return lambda request: [request.answer(output, status)]


class TestAnswer:
    @pytest.mark.parametrize("status", [0, 1, 127, 143, 255])
    def test_exit_code(self, connect: Connect, status: int) -> None:
        assert connect(answering(status=status)).run("x").exit_code == status

    def test_every_byte_comes_as_it_was(self, connect: Connect) -> None:
        output = ALL_BYTES + ALL_BYTES[::-1]
        assert connect(answering(output)).run("x").data == output

    def test_output_as_text_forgives_bad_utf8(self, connect: Connect) -> None:
        assert connect(answering(b"\xff\xe2\x82\xac")).run("x").output == "\ufffd\u20ac"

    def test_nothing_is_an_answer(self, connect: Connect) -> None:
        assert connect(answering(b"")).run("x").data == b""

    def test_a_missing_final_newline_is_not_made_up(self, connect: Connect) -> None:
        assert connect(answering(b"no newline")).run("x").data == b"no newline"

    def test_byte_by_byte(self, connect: Connect) -> None:
        def run(request: Request) -> Iterable[bytes]:
            return (bytes([byte]) for byte in request.answer(b"slow\n", 3))

        result = connect(run).run("x")
        assert (result.exit_code, result.data) == (3, b"slow\n")

    @pytest.mark.parametrize("at", range(1, 12))
    def test_a_marker_in_two_pieces(self, connect: Connect, at: int) -> None:
        def run(request: Request) -> Iterable[bytes]:
            begin = request.begin()
            rest = b"out" + request.end(0, 3)
            return [begin[:at], begin[at:] + rest[: 3 + at], rest[3 + at :]]

        assert connect(run).run("x").data == b"out"

    def test_sixteen_mebibytes_do_not_outlast_the_deadline(self, connect: Connect) -> None:
        """Looking for the end in all that came, again with each piece, takes minutes."""
        output = ALL_BYTES * (1 << 16)
        assert connect(answering(output)).run("x", timeout_s=60).data == output


class TestRequest:
    def test_script_and_input_arrive_as_they_are(self) -> None:
        agent = FakeAgent(answering())
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        console.wait_ready(30)
        console.run(b"printf '\xff\x00'\n", stdin=ALL_BYTES)
        console.run("echo \u20ac")
        agent.close()
        first, second = agent.requests
        assert (first.script, first.stdin) == (b"printf '\xff\x00'\n", ALL_BYTES)
        assert (second.script, second.stdin) == ("echo \u20ac".encode(), b"")
        assert first.nonce == second.nonce
        assert second.seq == first.seq + 1

    def test_two_consoles_have_two_nonces(self) -> None:
        nonces = []
        for _ in range(2):
            agent = FakeAgent(answering())
            console = Console("serial", SocketTransport(agent.host), FakeGuest())
            console.wait_ready(30)
            console.run("x")
            agent.close()
            nonces.append(agent.requests[0].nonce)
        assert nonces[0] != nonces[1]


class TestWhatIsNoAnswer:
    def test_output_that_an_earlier_command_left(self, connect: Connect) -> None:
        def run(request: Request) -> Iterable[bytes]:
            earlier = Request(request.nonce, request.seq - 1)
            return [b"late words" + earlier.end(9, 10), request.answer(b"mine")]

        result = connect(run).run("x")
        assert (result.exit_code, result.data) == (0, b"mine")

    def test_markers_of_another_console(self, connect: Connect) -> None:
        def run(request: Request) -> Iterable[bytes]:
            other = Request(b"0" * 32, request.seq)
            return [request.answer(other.answer(b"theirs", 7))]

        result = connect(run).run("x")
        assert result.exit_code == 0
        assert result.data.startswith(b"\x1eBLOCKYARD 00000000000000000000000000000000 1 begin\n")
        assert b"theirs" in result.data

    def test_the_greeting_of_an_agent_in_the_output(self, connect: Connect) -> None:
        assert connect(answering(READY)).run("x").data == READY

    def test_noise_before_the_greeting(self) -> None:
        agent = FakeAgent(answering(b"out"), greeting=b"boot noise \xff\n" + READY)
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        console.wait_ready(30)
        assert console.run("x").data == b"out"
        agent.close()


class TestLostBytes:
    @pytest.mark.parametrize("told", [4, 2])
    def test_the_count_has_to_be_right(self, connect: Connect, told: int) -> None:
        console = connect(lambda request: [request.begin() + b"abc" + request.end(0, told)])
        with pytest.raises(ConsoleLost, match=f"3 bytes of output arrived, the guest sent {told}"):
            console.run("x")
        assert console.dead

    def test_a_dead_console_takes_no_command(self, connect: Connect) -> None:
        console = connect(lambda request: [request.begin() + request.end(0, 1)])
        with pytest.raises(ConsoleLost):
            console.run("x")
        with pytest.raises(ConsoleLost, match="0 bytes of output arrived"):
            console.run("y")

    def test_no_greeting(self) -> None:
        agent = FakeAgent(answering(), greeting=b"")
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        with pytest.raises(ConsoleLost, match="did not answer"):
            console.wait_ready(0.1)
        assert console.dead
        agent.close()

    def test_a_boot_that_goes_on_is_waited_for(self) -> None:
        def late() -> int:
            asked.append(1)
            if len(asked) == 4:
                agent._guest.sendall(READY)
            return len(asked)

        asked: list[int] = []
        agent = FakeAgent(answering(), greeting=b"")
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        console.wait_ready(0.1, late, 8)
        agent.close()

    def test_not_for_ever(self) -> None:
        lines = iter(range(100))
        agent = FakeAgent(answering(), greeting=b"")
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        with pytest.raises(ConsoleLost, match="did not answer"):
            console.wait_ready(0.05, lambda: next(lines), 3)
        assert next(lines) == 6
        agent.close()

    def test_no_begin(self, connect: Connect) -> None:
        console = connect(silence, scale=0.01)
        with pytest.raises(ConsoleLost, match="took no command"):
            console.run("x")
        assert console.dead

    def test_the_stream_ends_before_the_answer(self) -> None:
        def run(request: Request) -> Iterable[bytes]:
            yield request.begin() + b"abc"
            agent.hang_up()

        agent = FakeAgent(run)
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        console.wait_ready(30)
        with pytest.raises(ConsoleLost, match="stream ended"):
            console.run("x")
        assert console.dead
        agent.close()


def begun(output: bytes = b"") -> Reply:
    """The first command never ends, the next ones do."""
    return lambda r: [r.begin() + output] if r.seq == 1 else [r.answer(b"next")]


class TestTimeOut:
    @pytest.mark.parametrize("output", [b"", b"so far", ALL_BYTES * 4096])
    def test_the_console_goes_on_when_the_kill_is_confirmed(
        self, connect: Connect, output: bytes
    ) -> None:
        console = connect(
            begun(output), lambda request: [request.end(137, len(output))], scale=HASTE
        )
        with pytest.raises(CommandTimedOut, match="no end after"):
            console.run("sleep inf", timeout_s=4)
        assert not console.dead
        assert console.run("x").data == b"next"

    def test_a_console_that_gives_up_asks_nothing_more(self, connect: Connect) -> None:
        console = connect(begun(), lambda request: [request.end(137, 0)], scale=HASTE)
        console.fail_fast = True
        for _ in range(2):
            with pytest.raises(CommandTimedOut, match="sleep inf"):
                console.run("sleep inf", timeout_s=1)
        with pytest.raises(CommandTimedOut, match="sleep inf"):
            console.run("clean up")

    def test_the_message_names_the_command_in_one_line(self, connect: Connect) -> None:
        console = connect(begun(), lambda request: [request.end(137, 0)], scale=HASTE)
        with pytest.raises(CommandTimedOut) as caught:
            console.run("while true; do\n  sleep 1\ndone", timeout_s=1)
        assert "while true; do ..." in str(caught.value)

    def test_an_end_that_crosses_the_kill_counts(self, connect: Connect) -> None:
        console = connect(begun(b"abc"), lambda request: [request.end(0, 3)], scale=HASTE)
        with pytest.raises(CommandTimedOut):
            console.run("x", timeout_s=1)
        assert console.run("x").data == b"next"

    def test_an_unconfirmed_kill_ends_the_console(self, connect: Connect) -> None:
        guest = FakeGuest(scale=HASTE)
        console = connect(begun(), silence, guest=guest)
        with pytest.raises(ConsoleLost):
            console.run("x", timeout_s=1)
        assert console.dead
        assert guest.examined == ["it did not come back after a command was killed"]
        with pytest.raises(ConsoleLost, match="did not come back"):
            console.run("x")

    def test_a_script_that_does_not_die_is_given_up(self, connect: Connect) -> None:
        kills: list[Request] = []

        def kill(request: Request) -> Iterable[bytes]:
            kills.append(request)
            return [request.end(GIVEN_UP, 0)] if len(kills) == 2 else []

        guest = FakeGuest(scale=HASTE)
        console = connect(begun(), kill, guest=guest)
        with pytest.raises(CommandTimedOut, match="stuck in the kernel"):
            console.run("x", timeout_s=1)
        assert (len(kills), guest.blocked, guest.examined) == (2, 1, [])
        assert console.run("x").data == b"next"

    def test_what_it_printed_last_is_told(self, connect: Connect) -> None:
        console = connect(begun(b"one\ntwo\n"), lambda r: [r.end(137, 8)], scale=HASTE)
        with pytest.raises(CommandTimedOut, match="its last words:\n    one\n    two"):
            console.run("x", timeout_s=1)

    def test_the_scale_stretches_the_deadline(self, connect: Connect) -> None:
        console = connect(begun(), lambda request: [request.end(137, 0)], scale=0.5)
        with pytest.raises(CommandTimedOut, match="no end after 1 s"):
            console.run("x", timeout_s=2)


class TestSignsOfLife:
    def test_they_are_no_output(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            return [r.begin() + b"ab", r.alive() + r.alive(), b"c" + r.alive() + r.end(0, 3)]

        assert connect(run).run("x").data == b"abc"

    def test_with_them_a_command_may_be_silent_for_long(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin()
            for _ in range(8):
                time.sleep(0.1)
                yield r.alive()
            yield r.end(0, 0)

        assert connect(run, scale=HASTE).run("x", timeout_s=600).exit_code == 0

    def test_without_them_the_guest_is_looked_into_before_the_deadline(
        self, connect: Connect
    ) -> None:
        guest = FakeGuest(scale=HASTE)
        begun_at = time.monotonic()
        with pytest.raises(ConsoleLost):
            connect(begun(b"so far"), guest=guest).run("x", timeout_s=6000)
        assert time.monotonic() - begun_at < 60
        assert guest.examined == ["no sign of life in the middle of a command"]


class TestBlocked:
    """What the guest program says of a command that waits in the kernel."""

    def blocked(self, *ms: int) -> Reply:
        def run(r: Request) -> Iterable[bytes]:
            if r.seq > 1:
                yield r.answer(b"next")
                return
            yield r.begin() + b"".join(r.blocked(one, name=b"dd if=/dev/x") for one in ms)

        return run

    def test_it_hangs_long_before_its_deadline(self, connect: Connect) -> None:
        guest = FakeGuest()
        kill = lambda r: [r.end(137, 0)]  # noqa: E731
        console = connect(self.blocked(19_000, 20_000), kill, guest=guest)
        with pytest.raises(CommandHung, match=r"dd if=/dev/x, pid 7, hangs: .* for 20 s") as caught:
            console.run("set -e\ndd if=/dev/x of=/dev/y", timeout_s=6000)
        assert "a larger blocked_s" in caught.value.hint
        assert "set -e" not in str(caught.value)
        assert guest.blocked == 1
        assert console.run("x").data == b"next"

    def test_one_that_may_wait_for_longer_does_not(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + r.blocked(20_000) + r.blocked(59_000) + r.end(0, 0)

        assert connect(run).run("x", blocked_s=60).exit_code == 0

    def test_so_may_those_of_check_put_and_get(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            data = b"" if r.script.startswith(b"cat -- ") else hashlib.sha256().hexdigest().encode()
            yield r.begin() + r.blocked(59_000) + data + r.end(0, len(data))

        console = connect(run)
        console.check("x", blocked_s=60)
        console.put(b"", "/x", blocked_s=60)
        assert console.get("/x", blocked_s=60) == b""
        with console.may_wait(60):
            console.check("x")
            console.put(b"", "/x")
            with console.follow("x") as running:
                running.result()

    def test_what_may_wait_says_ends_with_its_block(self, connect: Connect) -> None:
        console = connect(self.blocked(20_000), lambda r: [r.end(137, 0)])
        with console.may_wait():
            pass
        with pytest.raises(CommandHung):
            console.check("x", timeout_s=6000)

    def test_what_a_disk_of_the_host_takes_is_not_counted(self, connect: Connect) -> None:
        """Before the command was blocked it was 7 s, then 15 s more."""
        stalls = iter([0.0, 7.0, 15.0, 22.0, 22.0, 22.0])  # the last: of the kill
        guest = FakeGuest(stalled=lambda: next(stalls))

        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + r.blocked(0)
            yield r.blocked(20_000) + r.blocked(34_000) + r.blocked(35_000)

        console = connect(run, lambda r: [r.end(137, 0)], guest=guest)
        with pytest.raises(CommandHung, match="for 20 s while"):
            console.run("x", timeout_s=6000)
        assert next(stalls, None) is None

    def test_one_that_the_guest_cannot_name(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + r.blocked(20_000)

        console = connect(run, lambda r: [r.end(137, 0)])
        with pytest.raises(CommandHung, match="mount /dev/x"):
            console.run("mount /dev/x")

    def test_a_name_with_control_characters_is_no_sign_of_life(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            odd = r.blocked(99_000, name=b"\x1b[31m")
            yield r.begin() + odd + r.end(0, len(odd))

        assert b"\x1b[31m" in connect(run).run("x").data


class TestFollow:
    def test_a_line_is_seen_while_the_command_runs(self, connect: Connect) -> None:
        seen = threading.Event()

        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + b"first\nsec"
            assert seen.wait(60)
            yield "ond \u20ac\nlast".encode() + r.end(3, 21)

        with connect(run).follow("x") as running:
            lines = running.lines()
            assert next(lines) == "first"
            seen.set()
            assert list(lines) == ["second \u20ac", "last"]
            assert running.result().exit_code == 3
            assert running.result().output == "first\nsecond \u20ac\nlast"

    def test_one_that_is_left_is_killed(self, connect: Connect) -> None:
        console = connect(begun(b"one\n"), lambda r: [r.end(137, 4)])
        with console.follow("x") as running:
            assert next(running.lines()) == "one"
        assert console.run("y").data == b"next"

    def test_a_piece_that_may_be_a_marker_waits(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + b"a" + r.end(0, 0)[:20]
            yield b"b" + r.end(0, 22)

        assert connect(run).run("x").data[:1] == b"a"


class TestLongOutput:
    def test_it_is_cut_with_a_mark_and_whole_in_a_file(
        self, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "MEMORY_LIMIT", 100_000)
        printed = ALL_BYTES * 1000
        result = connect(answering(printed), guest=FakeGuest(directory=tmp_path)).run("x")
        assert result.file is not None
        assert result.file.read_bytes() == result.whole() == printed
        assert result.data.startswith(printed[:100_000] + b"\n[cut after 100000 of 256000 bytes")

    def test_one_without_end_is_ended(
        self, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "FILE_LIMIT", 100_000)
        console = connect(
            begun(ALL_BYTES * 1000), lambda r: [r.end(137, 0)], guest=FakeGuest(directory=tmp_path)
        )
        with pytest.raises(CommandTimedOut, match="of output"):
            console.run("x")
        assert console.run("x").data == b"next"


class TestWatch:
    def test_what_the_watch_raises_ends_the_wait(self, connect: Connect) -> None:
        looks = 0

        def watch() -> None:
            nonlocal looks
            looks += 1
            if looks > 2:
                raise GuestPanicked("the guest's kernel panicked", kernel_log="last words")

        console = connect(begun(), watch=watch)
        with pytest.raises(GuestPanicked) as caught:
            console.run("x", timeout_s=600)
        assert caught.value.kernel_log == "last words"

    def test_it_explains_the_end_of_the_stream(self) -> None:
        def run(request: Request) -> Iterable[bytes]:
            yield request.begin()
            gone.append(True)
            agent.hang_up()

        def watch() -> None:
            if gone:
                raise GuestPanicked("the guest's kernel panicked")

        gone: list[bool] = []
        agent = FakeAgent(run)
        console = Console("serial", SocketTransport(agent.host), FakeGuest(watch))
        console.wait_ready(30)
        with pytest.raises(GuestPanicked):
            console.run("x")
        agent.close()


class TestCheck:
    def test_output(self, connect: Connect) -> None:
        assert connect(answering(b"yes\n")).check("x") == "yes\n"

    def test_a_failure_is_told_with_code_and_output(self, connect: Connect) -> None:
        with pytest.raises(CommandFailed, match="exit code 3") as caught:
            connect(answering(b"no such disk\n", 3)).check("x")
        assert "no such disk" in str(caught.value)


SHA256_OF_ABC = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n"
ANOTHER_SHA256 = b"0" * 64 + b"  -\n"


class TestFiles:
    def test_put(self, connect: Connect) -> None:
        connect(answering(SHA256_OF_ABC)).put(b"abc", "/tmp/a file")

    def test_put_of_a_file_that_arrives_damaged(self, connect: Connect) -> None:
        with pytest.raises(Failure, match="cannot write /tmp/a file"):
            connect(answering(ANOTHER_SHA256)).put(b"abc", "/tmp/a file")

    def test_put_without_room(self, connect: Connect) -> None:
        words = b"cat: write error: No space left on device\n"
        with pytest.raises(Failure, match="No space left"):
            connect(answering(words, 1)).put(b"abc", "/tmp/x")

    def test_get(self, connect: Connect) -> None:
        console = connect(lambda r: [r.answer(b"abc" if r.seq == 1 else SHA256_OF_ABC)])
        assert console.get("/tmp/x") == b"abc"

    def test_get_of_a_file_that_changes(self, connect: Connect) -> None:
        console = connect(lambda r: [r.answer(b"abc" if r.seq == 1 else ANOTHER_SHA256)])
        with pytest.raises(Failure, match="changed while it was read"):
            console.get("/tmp/x")

    def test_get_of_nothing(self, connect: Connect) -> None:
        words = b"cat: /tmp/x: No such file or directory\n"
        with pytest.raises(Failure, match="No such file"):
            connect(answering(words, 1)).get("/tmp/x")
