# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's end of a console without a guest; images/guest/agent.c documents the protocol.

A test chooses every byte that is sent for a request, so it can also send what the real agent
never would.
"""

from __future__ import annotations

import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.images.console.console import READY, Console
from blockyard.images.console.serial import SocketTransport
from blockyard.images.errors import ConsoleLost, GuestError

_RUN = re.compile(rb"BLOCKYARD (\w+) (\d+) run (\d+) (\d+)\n")
_KILL = re.compile(rb"BLOCKYARD (\w+) (\d+) kill\n")


@dataclass(frozen=True)
class Request:
    """A command from the host."""

    nonce: bytes
    seq: int
    script: bytes = b""
    stdin: bytes = b""

    def marker(self, rest: bytes) -> bytes:
        return b"\x1eBLOCKYARD %s %d %s\n" % (self.nonce, self.seq, rest)

    def begin(self) -> bytes:
        return self.marker(b"begin")

    def alive(self) -> bytes:
        return self.marker(b"alive 0 0 ")

    def blocked(self, ms: int, pid: int = 7, name: bytes = b"") -> bytes:
        return self.marker(b"alive %d %d %s" % (ms, pid, name))

    def end(self, status: int, size: int) -> bytes:
        return self.marker(b"end %d %d" % (status, size))

    def answer(self, output: bytes = b"", status: int = 0) -> bytes:
        return self.begin() + output + self.end(status, len(output))


def healthy() -> None:
    """A watch that reports no problem."""


@dataclass
class FakeGuest:
    """The machine as a console sees it; `examined` and `blocked` record the console's calls."""

    watch: Callable[[], None] = healthy
    scale: float = 1.0
    directory: Path = Path(tempfile.gettempdir())
    examined: list[str] = field(default_factory=list)
    blocked: int = 0
    stalled: Callable[[], float] = lambda: 0.0

    def time(self) -> float:
        return time.monotonic()

    def stalled_s(self) -> float:
        return self.stalled()

    def kernel_log_tail(self) -> str:
        return ""

    def dump_blocked_tasks(self) -> str:
        self.blocked += 1
        return ""

    def examine(self, console: Console, why: str) -> GuestError:
        self.examined.append(why)
        return ConsoleLost(f"{console.name} console: {why}")


Reply = Callable[[Request], Iterable[bytes]]  # what is sent, one write per element


def silence(_: Request) -> Iterable[bytes]:
    return ()


class FakeAgent:
    """Answers requests on its end of a socket pair until the other end is closed."""

    def __init__(self, run: Reply, kill: Reply = silence, greeting: bytes = READY) -> None:
        self.host, self._guest = socket.socketpair()
        self._run = run
        self._kill = kill
        self._input = b""
        self.requests: list[Request] = []
        self._thread = threading.Thread(target=self._serve, args=[greeting], daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.host.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def hang_up(self) -> None:
        """Closes the connection, as the end of QEMU does."""
        self._guest.shutdown(socket.SHUT_RDWR)

    def _serve(self, greeting: bytes) -> None:
        with self._guest:
            try:
                self._guest.sendall(greeting)
                while True:
                    self._serve_request()
            except (EOFError, OSError):
                pass

    def _serve_request(self) -> None:
        while b"\n" not in self._input:
            self._fill()
        if match := _KILL.match(self._input):
            self._input = self._input[match.end() :]
            reply = self._kill(Request(match[1], int(match[2])))
        elif match := _RUN.match(self._input):
            sizes = int(match[3]), int(match[4])
            while len(self._input) < match.end() + sum(sizes):
                self._fill()
            script_end = match.end() + sizes[0]
            script = self._input[match.end() : script_end]
            stdin = self._input[script_end : script_end + sizes[1]]
            self._input = self._input[script_end + sizes[1] :]
            request = Request(match[1], int(match[2]), script, stdin)
            self.requests.append(request)
            reply = self._run(request)
        else:
            raise AssertionError(f"not a request: {self._input[:100]!r}")
        for data in reply:
            self._guest.sendall(data)

    def _fill(self) -> None:
        data = self._guest.recv(1 << 16)
        if not data:
            raise EOFError
        self._input += data


Connect = Callable[..., Console]


@contextmanager
def connecting() -> Iterator[Connect]:
    """A function that makes consoles of fake agents, after their greeting."""
    agents: list[FakeAgent] = []

    def connect(
        run: Reply,
        kill: Reply = silence,
        *,
        watch: Callable[[], None] = healthy,
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


def hang_on_first(output: bytes = b"") -> Reply:
    """Never ends the first command, answers the next ones."""
    return lambda r: [r.begin() + output] if r.seq == 1 else [r.answer(b"next")]
