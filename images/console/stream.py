# SPDX-License-Identifier: GPL-2.0-or-later
"""The byte stream between a console and the guest program; watches the machine while it waits.

pexpect finds the greeting and the begin marker. The output of a command is read piece by piece: it
can have any size, contain any bytes, and is passed on as soon as it is printed.
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

END_S = 1.0  # a dead machine is detected within this after its stream ended
WATCH_S = 0.2  # how often the machine is checked while nothing arrives
CHUNK = 1 << 18  # bytes per read
LAST = 1 << 14  # bytes: the end of the stream, kept for the diagnosis of a failure
SKIPPED_MAX = 64 << 20  # bytes before a marker; an earlier command leaves at most a pipe's content
MARK = b"\x1e"  # first byte of every marker
MARKER_MAX = 512  # bytes: text, 32 digits of nonce, numbers, the name of a task
# The part of a marker after its nonce and number (agent.c).
_ALIVE_OR_END = (
    rb"(?:alive (?P<ms>\d{1,15}) (?P<pid>\d{1,10}) (?P<name>[ -~]{0,255})"
    rb"|end (?P<status>\d{1,3}) (?P<size>\d{1,20}))\n"
)


class Transport(Protocol):
    """A byte stream to the guest program."""

    def send(self, data: bytes, wait_s: float) -> int:
        """Writes some of `data`, waiting at most `wait_s`; the bytes written (0: none yet)."""

    def receive(self, wait_s: float) -> bytes | None:
        """Bytes that arrived; None when none did within `wait_s`, b"" at the end of the stream."""

    def close(self) -> None:
        """Closes the stream."""


class NoHeartbeat(Exception):
    """Nothing arrived for longer than a live guest program is ever silent."""


class Blocked(Exception):
    """The command is blocked in the kernel while the guest is idle."""

    def __init__(self, seconds: float, pid: int, command: str) -> None:
        super().__init__(command)
        self.seconds = seconds  # how long, on the guest's clock
        self.pid = pid  # the blocked task
        self.command = command  # of that task


class Stream(_SpawnBase):
    """A transport in which pexpect can search for markers.

    watch: raises an error when the machine has failed. clock: for deadlines, in seconds. stalled_s:
    seconds so far in which the machine waited for a disk of the host. name: the console's, for the
    debug log of bytes sent (>) and received (<).
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
        self.last = b""  # the last LAST bytes received
        self._transport = transport
        self._name = name
        self._watch = watch
        self._clock = clock
        self._stalled_s = stalled_s
        self._watched = 0.0
        self._skipped = 0  # bytes received while waiting for a marker
        self._seek_until = 0.0

    def look(self) -> None:
        """Raises what `watch` raises; does nothing when it was called less than WATCH_S ago."""
        if time.monotonic() - self._watched > WATCH_S:
            self._watch()
            self._watched = time.monotonic()

    def seek(self, marker: bytes, timeout_s: float) -> None:
        """Discards everything up to the end of `marker`; raises pexpect's TIMEOUT or EOF."""
        self._skipped = 0
        self._seek_until = self._clock() + timeout_s
        self.expect_exact(marker, timeout=None)

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """Called by pexpect: returns some bytes, or raises its TIMEOUT or EOF."""
        data = self._read(self._seek_until, None)
        self._skipped += len(data)
        if self._skipped > SKIPPED_MAX:  # pexpect keeps all of it in memory
            raise pexpect.TIMEOUT(f"more than {SKIPPED_MAX >> 20} MiB and no marker")
        return data

    def _read(self, deadline: float, quiet_s: float | None) -> bytes:
        started = self._clock()
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
            if quiet_s is not None and now - started > quiet_s:
                raise NoHeartbeat

    def _explain_end(self) -> None:
        """Waits for the watch to raise: a dying QEMU closes its streams before it has ended."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            self._watch()
            time.sleep(0.02)

    def pieces(
        self, prefix: bytes, deadline: float, quiet_s: float, blocked_s: float
    ) -> Generator[bytes, None, tuple[int, int]]:
        """Yields a command's output as it arrives; returns its exit code and its size in bytes.

        prefix: the first bytes of the command's markers. Raises NoHeartbeat when nothing, not even
        a heartbeat, arrived for `quiet_s`; Blocked when the command was blocked for `blocked_s`,
        not counting the time in which the machine waited for a disk of the host; pexpect's TIMEOUT
        at `deadline` (on the clock) and EOF; and what the watch raises.
        """
        marker = re.compile(re.escape(prefix) + _ALIVE_OR_END)
        held, self.buffer = self.buffer, b""
        late = False
        stalled_s = self._stalled_s()  # as of the last moment when the command was not blocked
        try:
            while True:
                match = marker.search(held)
                whole = match.start() if match else _before_partial_marker(held, prefix)
                piece, held = held[:whole], held[whole:]
                if piece:
                    yield piece  # who stops here leaves the marker in the buffer
                held = held[match.end() - whole :] if match else held
                if match is None:
                    if late:  # although output still arrives
                        raise pexpect.TIMEOUT("the command did not end in time")
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
        """Sends all of `data`; False when the guest did not accept it by `deadline`."""
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
    """How many bytes of `data` are certainly output; its end may be the start of a marker."""
    at = data.rfind(MARK, max(0, len(data) - MARKER_MAX))
    if at < 0:
        return len(data)
    end = data[at:]
    return at if end.startswith(prefix) or prefix.startswith(end) else len(data)
