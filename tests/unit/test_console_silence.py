# SPDX-License-Identifier: GPL-2.0-or-later
"""A console whose command is late or whose guest is silent: deadlines, heartbeats, hangs."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable

import pytest

from blockyard.images.console.console import GIVEN_UP, Console
from blockyard.images.console.serial import SocketTransport
from blockyard.images.errors import (
    CommandHung,
    CommandTimedOut,
    ConsoleLost,
    GuestPanicked,
)
from blockyard.tests.unit.fake_agent import (
    Connect,
    FakeAgent,
    FakeGuest,
    Reply,
    Request,
    hang_on_first,
    silence,
)

ALL_BYTES = bytes(range(256))
SHORT = 0.05  # scale for tests that wait for a deadline: 1 s to begin, 0.25 s to be killed


class TestTimeout:
    @pytest.mark.parametrize("output", [b"", b"so far", ALL_BYTES * 4096])
    def test_console_works_after_a_confirmed_kill(self, connect: Connect, output: bytes) -> None:
        console = connect(
            hang_on_first(output), lambda request: [request.end(137, len(output))], scale=SHORT
        )
        with pytest.raises(CommandTimedOut, match="timed out after"):
            console.run("sleep inf", timeout_s=4)
        assert not console.dead
        assert console.run("x").data == b"next"

    def test_fail_fast_sends_nothing_after_a_timeout(self, connect: Connect) -> None:
        console = connect(hang_on_first(), lambda request: [request.end(137, 0)], scale=SHORT)
        console.fail_fast = True
        for _ in range(2):
            with pytest.raises(CommandTimedOut, match="sleep inf"):
                console.run("sleep inf", timeout_s=1)
        with pytest.raises(CommandTimedOut, match="sleep inf"):
            console.run("clean up")

    def test_message_names_the_command_in_one_line(self, connect: Connect) -> None:
        console = connect(hang_on_first(), lambda request: [request.end(137, 0)], scale=SHORT)
        with pytest.raises(CommandTimedOut) as caught:
            console.run("while true; do\n  sleep 1\ndone", timeout_s=1)
        assert "while true; do ..." in str(caught.value)

    def test_command_may_end_while_the_kill_is_sent(self, connect: Connect) -> None:
        console = connect(hang_on_first(b"abc"), lambda request: [request.end(0, 3)], scale=SHORT)
        with pytest.raises(CommandTimedOut):
            console.run("x", timeout_s=1)
        assert console.run("x").data == b"next"

    def test_unconfirmed_kill_ends_the_console(self, connect: Connect) -> None:
        guest = FakeGuest(scale=SHORT)
        console = connect(hang_on_first(), silence, guest=guest)
        with pytest.raises(ConsoleLost):
            console.run("x", timeout_s=1)
        assert console.dead
        assert guest.examined == ["it did not answer after a command was killed"]
        with pytest.raises(ConsoleLost, match="did not answer after"):
            console.run("x")

    def test_script_that_survives_the_kill_is_abandoned(self, connect: Connect) -> None:
        kills: list[Request] = []

        def kill(request: Request) -> Iterable[bytes]:
            kills.append(request)
            return [request.end(GIVEN_UP, 0)] if len(kills) == 2 else []

        guest = FakeGuest(scale=SHORT)
        console = connect(hang_on_first(), kill, guest=guest)
        with pytest.raises(CommandTimedOut, match="stuck in the kernel"):
            console.run("x", timeout_s=1)
        assert (len(kills), guest.blocked, guest.examined) == (2, 1, [])
        assert console.run("x").data == b"next"

    def test_message_quotes_the_last_output(self, connect: Connect) -> None:
        console = connect(hang_on_first(b"one\ntwo\n"), lambda r: [r.end(137, 8)], scale=SHORT)
        with pytest.raises(CommandTimedOut, match="its last output:\n    one\n    two"):
            console.run("x", timeout_s=1)

    def test_scale_multiplies_the_deadline(self, connect: Connect) -> None:
        console = connect(hang_on_first(), lambda request: [request.end(137, 0)], scale=0.5)
        with pytest.raises(CommandTimedOut, match="timed out after 1 s"):
            console.run("x", timeout_s=2)


class TestHeartbeat:
    def test_heartbeats_are_not_output(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            return [r.begin() + b"ab", r.alive() + r.alive(), b"c" + r.alive() + r.end(0, 3)]

        assert connect(run).run("x").data == b"abc"

    def test_command_with_heartbeats_may_be_silent_for_long(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin()
            for _ in range(8):
                time.sleep(0.1)
                yield r.alive()
            yield r.end(0, 0)

        assert connect(run, scale=SHORT).run("x", timeout_s=600).exit_code == 0

    def test_guest_without_heartbeats_is_examined_before_the_deadline(
        self, connect: Connect
    ) -> None:
        guest = FakeGuest(scale=SHORT)
        started_s = time.monotonic()
        with pytest.raises(ConsoleLost):
            connect(hang_on_first(b"so far"), guest=guest).run("x", timeout_s=6000)
        assert time.monotonic() - started_s < 60
        assert guest.examined == ["no heartbeat during a command"]


class TestBlocked:
    """The agent reports a command that is blocked in the kernel."""

    def blocked(self, *ms: int) -> Reply:
        def run(r: Request) -> Iterable[bytes]:
            if r.seq > 1:
                yield r.answer(b"next")
                return
            yield r.begin() + b"".join(r.blocked(time_ms, name=b"dd if=/dev/x") for time_ms in ms)

        return run

    def test_blocked_command_hangs_before_its_deadline(self, connect: Connect) -> None:
        guest = FakeGuest()
        kill = lambda r: [r.end(137, 0)]  # noqa: E731
        console = connect(self.blocked(19_000, 20_000), kill, guest=guest)
        with pytest.raises(CommandHung, match=r"dd if=/dev/x, pid 7, hangs: .* for 20 s") as caught:
            console.run("set -e\ndd if=/dev/x of=/dev/y", timeout_s=6000)
        assert "a larger blocked_s" in caught.value.hint
        assert "set -e" not in str(caught.value)
        assert guest.blocked == 1
        assert console.run("x").data == b"next"

    def test_blocked_s_allows_a_longer_block(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + r.blocked(20_000) + r.blocked(59_000) + r.end(0, 0)

        assert connect(run).run("x", blocked_s=60).exit_code == 0

    def test_blocked_s_of_check_put_and_get(self, connect: Connect) -> None:
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

    def test_may_wait_ends_with_its_block(self, connect: Connect) -> None:
        console = connect(self.blocked(20_000), lambda r: [r.end(137, 0)])
        with console.may_wait():
            pass
        with pytest.raises(CommandHung):
            console.check("x", timeout_s=6000)

    def test_time_stalled_on_the_host_is_not_counted(self, connect: Connect) -> None:
        """The host stalls 7 s before the command is blocked, and 15 s after."""
        stalls = iter([0.0, 7.0, 15.0, 22.0, 22.0, 22.0])  # the last is read by the kill
        guest = FakeGuest(stalled=lambda: next(stalls))

        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + r.blocked(0)
            yield r.blocked(20_000) + r.blocked(34_000) + r.blocked(35_000)

        console = connect(run, lambda r: [r.end(137, 0)], guest=guest)
        with pytest.raises(CommandHung, match="for 20 s while"):
            console.run("x", timeout_s=6000)
        assert next(stalls, None) is None

    def test_script_is_named_if_the_agent_names_no_process(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            yield r.begin() + r.blocked(20_000)

        console = connect(run, lambda r: [r.end(137, 0)])
        with pytest.raises(CommandHung, match="mount /dev/x"):
            console.run("mount /dev/x")

    def test_marker_with_control_characters_is_output(self, connect: Connect) -> None:
        def run(r: Request) -> Iterable[bytes]:
            odd = r.blocked(99_000, name=b"\x1b[31m")
            yield r.begin() + odd + r.end(0, len(odd))

        assert b"\x1b[31m" in connect(run).run("x").data


class TestWatch:
    def test_exception_of_the_watch_ends_the_wait(self, connect: Connect) -> None:
        looks = 0

        def watch() -> None:
            nonlocal looks
            looks += 1
            if looks > 2:
                raise GuestPanicked("the guest's kernel panicked", kernel_log="the end of the log")

        console = connect(hang_on_first(), watch=watch)
        with pytest.raises(GuestPanicked) as caught:
            console.run("x", timeout_s=600)
        assert caught.value.kernel_log == "the end of the log"

    def test_watch_explains_the_end_of_the_stream(self) -> None:
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
