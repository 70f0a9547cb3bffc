# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's end of a console: framing of commands and answers."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from blockyard.images.console import result as output
from blockyard.images.console.console import READY, Console
from blockyard.images.console.serial import SocketTransport
from blockyard.images.errors import (
    CommandFailed,
    CommandTimedOut,
    ConsoleLost,
)
from blockyard.kernel.host.errors import Failure
from blockyard.tests.unit.fake_agent import (
    Connect,
    FakeAgent,
    FakeGuest,
    Request,
    answering,
    hang_on_first,
    silence,
)

ALL_BYTES = bytes(range(256))
SHORT = 0.05  # scale for tests that wait for a deadline: 1 s to begin, 0.25 s to be killed


class TestAnswer:
    @pytest.mark.parametrize("status", [0, 1, 127, 143, 255])
    def test_exit_code(self, connect: Connect, status: int) -> None:
        assert connect(answering(status=status)).run("x").exit_code == status

    def test_output_of_all_byte_values(self, connect: Connect) -> None:
        output = ALL_BYTES + ALL_BYTES[::-1]
        assert connect(answering(output)).run("x").data == output

    def test_invalid_utf8_is_replaced_in_text(self, connect: Connect) -> None:
        assert connect(answering(b"\xff\xe2\x82\xac")).run("x").output == "\ufffd\u20ac"

    def test_empty_output(self, connect: Connect) -> None:
        assert connect(answering(b"")).run("x").data == b""

    def test_no_final_newline_is_added(self, connect: Connect) -> None:
        assert connect(answering(b"no newline")).run("x").data == b"no newline"

    def test_answer_that_arrives_byte_by_byte(self, connect: Connect) -> None:
        def run(request: Request) -> Iterable[bytes]:
            return (bytes([byte]) for byte in request.answer(b"slow\n", 3))

        result = connect(run).run("x")
        assert (result.exit_code, result.data) == (3, b"slow\n")

    @pytest.mark.parametrize("at", range(1, 12))
    def test_marker_that_arrives_in_two_pieces(self, connect: Connect, at: int) -> None:
        def run(request: Request) -> Iterable[bytes]:
            begin = request.begin()
            rest = b"out" + request.end(0, 3)
            return [begin[:at], begin[at:] + rest[: 3 + at], rest[3 + at :]]

        assert connect(run).run("x").data == b"out"

    def test_large_output_is_read_in_linear_time(self, connect: Connect) -> None:
        """Searching all output again after each piece would take minutes."""
        output = ALL_BYTES * (1 << 16)
        assert connect(answering(output)).run("x", timeout_s=60).data == output


class TestRequest:
    def test_script_and_stdin_arrive_unchanged(self) -> None:
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

    def test_each_console_has_its_own_nonce(self) -> None:
        nonces = []
        for _ in range(2):
            agent = FakeAgent(answering())
            console = Console("serial", SocketTransport(agent.host), FakeGuest())
            console.wait_ready(30)
            console.run("x")
            agent.close()
            nonces.append(agent.requests[0].nonce)
        assert nonces[0] != nonces[1]


class TestNoise:
    def test_late_answer_of_an_earlier_command_is_discarded(self, connect: Connect) -> None:
        def run(request: Request) -> Iterable[bytes]:
            earlier = Request(request.nonce, request.seq - 1)
            return [b"late bytes" + earlier.end(9, 10), request.answer(b"mine")]

        result = connect(run).run("x")
        assert (result.exit_code, result.data) == (0, b"mine")

    def test_markers_of_another_console_are_output(self, connect: Connect) -> None:
        def run(request: Request) -> Iterable[bytes]:
            other = Request(b"0" * 32, request.seq)
            return [request.answer(other.answer(b"theirs", 7))]

        result = connect(run).run("x")
        assert result.exit_code == 0
        assert result.data.startswith(b"\x1eBLOCKYARD 00000000000000000000000000000000 1 begin\n")
        assert b"theirs" in result.data

    def test_greeting_in_the_output_is_output(self, connect: Connect) -> None:
        assert connect(answering(READY)).run("x").data == READY

    def test_noise_before_the_greeting_is_ignored(self) -> None:
        agent = FakeAgent(answering(b"out"), greeting=b"boot noise \xff\n" + READY)
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        console.wait_ready(30)
        assert console.run("x").data == b"out"
        agent.close()


class TestLostBytes:
    @pytest.mark.parametrize("count", [4, 2])
    def test_wrong_count_of_bytes_ends_the_console(self, connect: Connect, count: int) -> None:
        console = connect(lambda request: [request.begin() + b"abc" + request.end(0, count)])
        with pytest.raises(ConsoleLost, match=f"3 bytes of output arrived, the guest sent {count}"):
            console.run("x")
        assert console.dead

    def test_lost_console_refuses_commands(self, connect: Connect) -> None:
        console = connect(lambda request: [request.begin() + request.end(0, 1)])
        with pytest.raises(ConsoleLost):
            console.run("x")
        with pytest.raises(ConsoleLost, match="0 bytes of output arrived"):
            console.run("y")

    def test_missing_greeting_ends_the_console(self) -> None:
        agent = FakeAgent(answering(), greeting=b"")
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        with pytest.raises(ConsoleLost, match="did not answer"):
            console.wait_ready(0.1)
        assert console.dead
        agent.close()

    def test_wait_goes_on_while_the_kernel_log_grows(self) -> None:
        def late() -> int:
            calls.append(1)
            if len(calls) == 4:
                agent._guest.sendall(READY)
            return len(calls)

        calls: list[int] = []
        agent = FakeAgent(answering(), greeting=b"")
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        console.wait_ready(0.1, late, 8)
        agent.close()

    def test_wait_for_a_growing_kernel_log_is_limited(self) -> None:
        lines = iter(range(100))
        agent = FakeAgent(answering(), greeting=b"")
        console = Console("serial", SocketTransport(agent.host), FakeGuest())
        with pytest.raises(ConsoleLost, match="did not answer"):
            console.wait_ready(0.05, lambda: next(lines), 3)
        assert next(lines) == 6
        agent.close()

    def test_missing_begin_ends_the_console(self, connect: Connect) -> None:
        console = connect(silence, scale=0.01)
        with pytest.raises(ConsoleLost, match="did not accept a command"):
            console.run("x")
        assert console.dead

    def test_end_of_stream_during_a_command_ends_the_console(self) -> None:
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


class TestFollow:
    def test_lines_are_seen_while_the_command_runs(self, connect: Connect) -> None:
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

    def test_command_is_killed_when_its_block_is_left(self, connect: Connect) -> None:
        console = connect(hang_on_first(b"one\n"), lambda r: [r.end(137, 4)])
        with console.follow("x") as running:
            assert next(running.lines()) == "one"
        assert console.run("y").data == b"next"

    def test_block_is_left_when_the_end_has_arrived(self, connect: Connect) -> None:
        """The guest ignores a kill then: the end was sent already."""
        guest = FakeGuest(scale=0.05)
        console = connect(answering(b"one\ntwo\n"), guest=guest)
        with console.follow("x") as running:
            assert next(running.lines()) == "one"
        assert not console.dead
        assert console.run("y").data == b"one\ntwo\n"

    def test_bytes_that_could_begin_a_marker_are_held_back(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + b"a" + r.end(0, 0)[:20]
            yield b"b" + r.end(0, 22)

        assert connect(run).run("x").data[:1] == b"a"


class TestLongOutput:
    def test_long_output_is_cut_in_memory_and_whole_in_a_file(
        self, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "MEMORY_LIMIT", 100_000)
        printed = ALL_BYTES * 1000
        result = connect(answering(printed), guest=FakeGuest(directory=tmp_path)).run("x")
        assert result.file is not None
        assert result.file.read_bytes() == result.whole() == printed
        assert result.data.startswith(printed[:100_000] + b"\n[cut after 100000 of 256000 bytes")

    def test_endless_output_is_killed(
        self, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(output, "FILE_LIMIT", 100_000)
        console = connect(
            hang_on_first(ALL_BYTES * 1000),
            lambda r: [r.end(137, 0)],
            guest=FakeGuest(directory=tmp_path),
        )
        with pytest.raises(CommandTimedOut, match="of output"):
            console.run("x")
        assert console.run("x").data == b"next"


class TestCheck:
    def test_output(self, connect: Connect) -> None:
        assert connect(answering(b"yes\n")).check("x") == "yes\n"

    def test_failure_has_exit_code_and_output(self, connect: Connect) -> None:
        with pytest.raises(CommandFailed, match="exit code 3") as caught:
            connect(answering(b"no such disk\n", 3)).check("x")
        assert "no such disk" in str(caught.value)


SHA256_OF_ABC = b"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  -\n"
ANOTHER_SHA256 = b"0" * 64 + b"  -\n"


class TestFiles:
    def test_put(self, connect: Connect) -> None:
        connect(answering(SHA256_OF_ABC)).put(b"abc", "/tmp/a file")

    def test_put_fails_if_the_digest_differs(self, connect: Connect) -> None:
        with pytest.raises(Failure, match="cannot write /tmp/a file"):
            connect(answering(ANOTHER_SHA256)).put(b"abc", "/tmp/a file")

    def test_put_fails_on_a_full_disk(self, connect: Connect) -> None:
        error = b"cat: write error: No space left on device\n"
        with pytest.raises(Failure, match="No space left"):
            connect(answering(error, 1)).put(b"abc", "/tmp/x")

    def test_get(self, connect: Connect) -> None:
        console = connect(lambda r: [r.answer(b"abc" if r.seq == 1 else SHA256_OF_ABC)])
        assert console.get("/tmp/x") == b"abc"

    def test_get_fails_if_the_digest_differs(self, connect: Connect) -> None:
        console = connect(lambda r: [r.answer(b"abc" if r.seq == 1 else ANOTHER_SHA256)])
        with pytest.raises(Failure, match="changed while it was read"):
            console.get("/tmp/x")

    def test_get_fails_on_a_missing_file(self, connect: Connect) -> None:
        error = b"cat: /tmp/x: No such file or directory\n"
        with pytest.raises(Failure, match="No such file"):
            connect(answering(error, 1)).get("/tmp/x")
