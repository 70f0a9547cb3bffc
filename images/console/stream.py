# SPDX-License-Identifier: GPL-2.0-or-later
"""The byte stream between a console and the guest program, with an eye on the machine.

pexpect finds the greeting and the begin marker. A command's output is taken piece by piece: it
may have any size, holds any bytes, and is seen as soon as it is printed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Protocol

import pexpect
from pexpect.spawnbase import SpawnBase

from blockyard.kernel.host.log import shown

if TYPE_CHECKING:
    _SpawnBase = SpawnBase[bytes]
else:  # generic in the stubs only
    _SpawnBase = SpawnBase

_log = logging.getLogger(__name__)

END_S = 1.0  # after its stream ended, a dead machine is seen to be dead within this
WATCH_S = 0.2  # how often the machine is looked at while nothing arrives
CHUNK = 1 << 18  # bytes per read
LAST = 1 << 14  # bytes that are kept of what came, for who looks into a failure
SKIPPED_MAX = 64 << 20  # bytes: what an earlier command may have left is a pipe's content
MARK = b"\x1e"  # begins every marker
MARKER_MAX = 512  # its text, 32 of nonce, numbers, the name of a task
# What follows a marker's nonce and number (agent.c).
_ALIVE_OR_END = (
    rb"(?:alive (?P<ms>\d{1,15}) (?P<pid>\d{1,10}) (?P<name>[ -~]{0,255})"
    rb"|end (?P<status>\d{1,3}) (?P<size>\d{1,20}))\n"
)


class Transport(Protocol):
    """A byte stream to the guest program."""

    def send(self, data: bytes, wait_s: float) -> int:
        """Writes some of `data`, waiting at most `wait_s`; returns how much (0: none yet)."""

    def receive(self, wait_s: float) -> bytes | None:
        """What arrived, None when nothing did within `wait_s`, b"" at the end of the stream."""

    def close(self) -> None:
        """Gives the stream back."""


class NoHeartbeat(Exception):
    """Nothing came for longer than a live guest program is silent."""


class Blocked(Exception):
    """The command waits in the kernel for something that does not come."""

    def __init__(self, seconds: float, pid: int, command: str) -> None:
        super().__init__(command)
        self.seconds = seconds  # of the guest's, for which it has waited
        self.pid = pid
        self.command = command


class Stream(_SpawnBase):
    """A transport that can be searched.

    watch: raises what is wrong with the machine. clock: what deadlines are counted on. stalled_s:
    for how many seconds so far the machine waited for a disk of the host's. name: of the console,
    for the log of what is sent (>) and received (<).
    """

    def __init__(
        self,
        transport: Transport,
        watch: Callable[[], None],
        clock: Callable[[], float],
        stalled_s: Callable[[], float] = lambda: 0.0,
        name: str = "console",
    ) -> None:
        super().__init__(timeout=None, maxread=CHUNK, searchwindowsize=None)
        self.delayafterread = None
        self.last = b""  # the end of what came
        self._transport = transport
        self._name = name
        self._watch = watch
        self._clock = clock
        self._stalled_s = stalled_s
        self._watched = 0.0
        self._skipped = 0  # bytes that came while a marker was awaited
        self._seek_until = 0.0

    def look(self) -> None:
        """Raises when something is wrong with the machine; cheap when it was just asked."""
        if time.monotonic() - self._watched > WATCH_S:
            self._watch()
            self._watched = time.monotonic()

    def seek(self, marker: bytes, timeout_s: float) -> None:
        """Takes everything up to the end of `marker`; raises pexpect's TIMEOUT or EOF."""
        self._skipped = 0
        self._seek_until = self._clock() + timeout_s
        self.expect_exact(marker, timeout=None)

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """pexpect's hook: some bytes, or its TIMEOUT or EOF."""
        data = self._read(self._seek_until, None)
        self._skipped += len(data)
        if self._skipped > SKIPPED_MAX:  # pexpect keeps all of it
            raise pexpect.TIMEOUT(f"more than {SKIPPED_MAX >> 20} MiB and no marker")
        return data

    def _read(self, deadline: float, quiet_s: float | None) -> bytes:
        begun = self._clock()
        while True:
            self.look()
            now = self._clock()
            data = self._transport.receive(max(0.0, min(WATCH_S, deadline - now)))
            if data:
                if _log.isEnabledFor(logging.DEBUG):
                    _log.debug("%s < %s", self._name, shown(data))
                self.last = (self.last + data)[-LAST:]
                return data
            if data is not None:
                self._explain_end()
                raise pexpect.EOF("the console's stream ended")
            if now >= deadline:
                raise pexpect.TIMEOUT("nothing arrived")
            if quiet_s is not None and now - begun > quiet_s:
                raise NoHeartbeat

    def _explain_end(self) -> None:
        """A dead machine explains the end better; it closes its streams before it has ended."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            self._watch()
            time.sleep(0.02)

    def pieces(
        self, prefix: bytes, deadline: float, quiet_s: float, blocked_s: float
    ) -> Generator[bytes, None, tuple[int, int]]:
        """Yields a command's output as it comes; returns its exit code and how long it was.

        prefix: what the command's markers begin with. Raises Silence when nothing, not even a
        sign of life, came for `quiet_s`; Blocked when the command was blocked for `blocked_s`, in
        which the machine waited for no disk of the host's; pexpect's TIMEOUT at `deadline` (of the
        clock) and EOF; and what the watch raises.
        """
        marker = re.compile(re.escape(prefix) + _ALIVE_OR_END)
        held, self.buffer = self.buffer, b""
        late = False
        stalled_s = self._stalled_s()  # before the command was blocked
        try:
            while True:
                match = marker.search(held)
                whole = match.start() if match else _before_partial_marker(held, prefix)
                piece, held = held[:whole], held[match.end() if match else whole :]
                if piece:
                    yield piece
                if match is None:
                    if late:  # and output comes all the same
                        raise pexpect.TIMEOUT("no end in time")
                    late = self._clock() > deadline
                    held += self._read(deadline, quiet_s)
                elif match["status"] is not None:
                    return int(match["status"]), int(match["size"])
                elif not int(match["ms"]):
                    stalled_s = self._stalled_s()
                else:
                    seconds = int(match["ms"]) / 1000 - (self._stalled_s() - stalled_s)
                    if seconds >= blocked_s:
                        raise Blocked(seconds, int(match["pid"]), match["name"].decode())
        finally:
            self.buffer = held

    def send_all(self, data: bytes, deadline: float) -> bool:
        """Sends everything; False when the guest does not take it by `deadline`."""
        view = memoryview(data)
        while view:
            self.look()
            sent = self._transport.send(bytes(view[:CHUNK]), WATCH_S)
            if sent and _log.isEnabledFor(logging.DEBUG):
                _log.debug("%s > %s", self._name, shown(bytes(view[:sent])))
            view = view[sent:]
            if not sent and self._clock() > deadline:
                return False
        return True


def _before_partial_marker(data: bytes, prefix: bytes) -> int:
    """How much of `data` is output for sure: a marker may have begun at its end."""
    at = data.rfind(MARK, max(0, len(data) - MARKER_MAX))
    if at < 0:
        return len(data)
    begun = data[at:]
    return at if begun.startswith(prefix) or prefix.startswith(begun) else len(data)
