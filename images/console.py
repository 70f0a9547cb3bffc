# SPDX-License-Identifier: GPL-2.0-or-later
"""Running commands in a guest: one class, whatever carries the bytes.

A command goes to the guest program (`guest/agent.c`) as a length and its bytes, so any script
arrives as it is. The answer stands between two markers that repeat a nonce and a number of ours:
what another command left behind is never taken for an answer, no prompt is ever matched, and the
end marker's byte count proves that nothing is missing. pexpect finds the markers; while it waits,
the machine is watched.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pexpect
from pexpect.spawnbase import SpawnBase

from images.errors import CommandFailed, CommandTimedOut, ConsoleDead
from kernel.host.errors import Failed

if TYPE_CHECKING:
    _SpawnBase = SpawnBase[bytes]
else:  # generic in the stubs only
    _SpawnBase = SpawnBase

READY = b"\x1eBLOCKYARD ready\n"
BEGIN_S = 20.0  # a live guest program answers a request within this, at accelerator scale 1
KILL_S = 5.0  # the end marker follows a kill within this
END_S = 1.0  # after its stream ended, a dead machine is seen to be dead within this
WATCH_S = 0.2  # how often the machine is looked at while nothing arrives
CHUNK = 1 << 16  # bytes per read
# pexpect looks for a pattern in the last so many bytes only. Nothing follows an end marker until
# the next request, and it is shorter than this: its text, 32 of nonce, three numbers.
END_WINDOW = 160


@dataclass(frozen=True)
class Result:
    """What a command did."""

    exit_code: int  # as a shell reports it: 128 + signal when killed
    data: bytes  # stdout and stderr as they came
    seconds: float

    @property
    def output(self) -> str:
        """The output as text."""
        return self.data.decode(errors="replace")


class Transport(Protocol):
    """A byte stream to the guest program."""

    def send(self, data: bytes, wait_s: float) -> int:
        """Writes some of `data`, waiting at most `wait_s`; returns how much (0: none yet)."""

    def receive(self, wait_s: float) -> bytes | None:
        """What arrived, None when nothing did within `wait_s`, b"" at the end of the stream."""

    def close(self) -> None:
        """Gives the stream back."""


class _Stream(_SpawnBase):
    """What pexpect reads from: a transport, with an eye on the machine."""

    def __init__(self, transport: Transport, watch: Callable[[], None]) -> None:
        super().__init__(timeout=None, maxread=CHUNK, searchwindowsize=None)
        self.delayafterread = None
        self._transport = transport
        self._watch = watch
        self._watched = 0.0

    def look(self) -> None:
        """Raises when something is wrong with the machine; cheap when it was just asked."""
        if time.monotonic() - self._watched > WATCH_S:
            self._watch()
            self._watched = time.monotonic()

    def read_nonblocking(self, size: int = 1, timeout: float | None = None) -> bytes:
        """pexpect's hook: some bytes, or its TIMEOUT or EOF."""
        deadline = time.monotonic() + (timeout or 0)
        while True:
            self.look()
            left = deadline - time.monotonic()
            data = self._transport.receive(max(0.0, min(WATCH_S, left)))
            if data:
                return data
            if data is not None:
                self._explain_end()
                raise pexpect.EOF("the console's stream ended")
            if left <= 0:
                raise pexpect.TIMEOUT("nothing arrived")

    def _explain_end(self) -> None:
        """A dead machine explains the end better; it closes its streams before it has ended."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            self._watch()
            time.sleep(0.02)

    def send_all(self, data: bytes, deadline: float) -> bool:
        """Sends everything; False when the guest does not take it by `deadline`."""
        view = memoryview(data)
        while view:
            self.look()
            sent = self._transport.send(bytes(view[:CHUNK]), WATCH_S)
            view = view[sent:]
            if not sent and time.monotonic() > deadline:
                return False
        return True


class Console:
    """Commands to one guest over one transport, one at a time.

    `watch` raises what is wrong with the machine (images.errors); `scale` stretches every
    deadline, for slow accelerators; `kernel_log` gives the last lines of the guest's kernel log,
    for errors.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        watch: Callable[[], None],
        scale: float = 1.0,
        kernel_log: Callable[[], str] = str,
    ) -> None:
        self.name = name
        self._transport = transport
        self._stream = _Stream(transport, watch)
        self._watch = watch
        self._scale = scale
        self._nonce = secrets.token_hex(16)
        self._seq = 0
        self._dead = ""
        self._kernel_log = kernel_log

    def wait_ready(self, timeout_s: float) -> None:
        """Waits for the guest program's greeting; raises ConsoleDead when it does not come."""
        try:
            self._stream.expect_exact(READY, timeout=timeout_s)
        except (pexpect.TIMEOUT, pexpect.EOF):
            self._watch()
            raise self._give_up(f"the guest did not answer within {timeout_s:.0f} s") from None

    def run(self, command: str | bytes, timeout_s: float = 60.0, *, stdin: bytes = b"") -> Result:
        """Runs a bash script in the guest.

        timeout_s is for an accelerator of scale 1 and stretched by the scale. Raises
        CommandTimedOut (the command was killed, the console goes on), ConsoleDead, GuestPanicked
        or QemuDied, each with the kernel log of that moment.
        """
        script = command.encode() if isinstance(command, str) else command
        begun = time.monotonic()
        self._request(b"run", script, stdin)
        limit_s = timeout_s * self._scale
        try:
            code, data = self._answer(limit_s)
        except pexpect.TIMEOUT:
            self._kill()
            raise CommandTimedOut(
                f"{self.name} console: no end after {limit_s:.0f} s: {_short(script)}",
                kernel_log=self._kernel_log(),
            ) from None
        except pexpect.EOF:
            raise self._give_up("the stream ended in the middle of a command") from None
        return Result(code, data, time.monotonic() - begun)

    def log(self, line: str) -> None:
        """Writes a line (with its level, such as ``<6>``) into the guest's kernel log.

        No process is started for it. Raises as `run` does.
        """
        # without its newline the kernel would hold the line back for a continuation
        self._request(b"log", f"{line}\n".encode(), b"")
        try:
            code, _ = self._answer(BEGIN_S * self._scale)
        except (pexpect.TIMEOUT, pexpect.EOF):
            self._watch()
            raise self._give_up("a line for the kernel log was not answered") from None
        if code:
            raise CommandFailed(f"the guest cannot write to its kernel log: {line}")

    def check(self, command: str, timeout_s: float = 60.0) -> str:
        """Runs a script in which every command has to succeed; returns its output.

        Raises CommandFailed otherwise, and what `run` raises.
        """
        result = self.run(f"set -e -o pipefail\n{command}", timeout_s)
        if result.exit_code:
            raise CommandFailed(
                f"exit code {result.exit_code} from: {_short(command.encode())}\n{result.output}"
            )
        return result.output

    def put(self, source: Path | bytes, path: str, timeout_s: float = 300.0) -> None:
        """Writes a file in the guest and checks its sha256."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        quoted = shlex.quote(path)
        result = self.run(f"cat > {quoted} && sha256sum < {quoted}", timeout_s, stdin=data)
        if result.exit_code or result.output.split()[0] != hashlib.sha256(data).hexdigest():
            raise Failed(f"cannot write {path} in the guest: {result.output.strip()}")

    def get(self, path: str, timeout_s: float = 300.0) -> bytes:
        """A file of the guest, its sha256 checked."""
        quoted = shlex.quote(path)
        result = self.run(f"cat -- {quoted}", timeout_s)
        if result.exit_code:
            raise Failed(f"cannot read {path} in the guest: {result.output.strip()}")
        told = self.check(f"sha256sum < {quoted}", timeout_s).split()[0]
        if hashlib.sha256(result.data).hexdigest() != told:
            raise Failed(f"{path} changed while it was read from the guest")
        return result.data

    def close(self) -> None:
        """Gives the transport back."""
        self._transport.close()

    def _request(self, verb: bytes, script: bytes, stdin: bytes) -> None:
        if self._dead:
            raise ConsoleDead(f"{self.name} console: {self._dead}")
        self._seq += 1
        header = b"BLOCKYARD %s %d %s %d %d\n" % (
            self._nonce.encode(),
            self._seq,
            verb,
            len(script),
            len(stdin),
        )
        limit_s = BEGIN_S * self._scale
        # a large payload takes longer; 1 MB/s is a tenth of what a slow guest takes
        deadline = time.monotonic() + limit_s + len(stdin) / 1e6
        sent = self._stream.send_all(header + script + stdin, deadline)
        try:
            if not sent:
                raise pexpect.TIMEOUT("not taken")
            self._stream.expect_exact(self._marker(b"begin\n"), timeout=limit_s)
        except (pexpect.TIMEOUT, pexpect.EOF):
            self._watch()
            raise self._give_up(f"it took no command within {limit_s:.0f} s") from None

    def _answer(self, limit_s: float) -> tuple[int, bytes]:
        end = re.compile(re.escape(self._marker(b"end ")) + rb"(\d+) (\d+)\n")
        self._stream.expect(end, timeout=limit_s, searchwindowsize=END_WINDOW)
        match, data = self._stream.match, self._stream.before
        assert isinstance(match, re.Match) and data is not None
        code, size = (int(group) for group in match.groups())
        if len(data) != size:
            raise self._give_up(f"{len(data)} bytes of output arrived, the guest sent {size}")
        return code, data

    def _marker(self, rest: bytes) -> bytes:
        return b"\x1eBLOCKYARD %s %d %s" % (self._nonce.encode(), self._seq, rest)

    def _kill(self) -> None:
        """Ends the running command; a console that does not confirm it is given up."""
        deadline = time.monotonic() + KILL_S * self._scale
        kill = b"BLOCKYARD %s %d kill\n" % (self._nonce.encode(), self._seq)
        try:
            if self._stream.send_all(kill, deadline):
                self._answer(KILL_S * self._scale)
                return
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass
        self._dead = "it did not come back after a command was killed"

    def _give_up(self, why: str) -> ConsoleDead:
        self._dead = why
        return ConsoleDead(f"{self.name} console: {why}", kernel_log=self._kernel_log())

    @property
    def dead(self) -> bool:
        """Whether this console has been given up."""
        return bool(self._dead)


def _short(script: bytes) -> str:
    text = script.decode(errors="replace").strip()
    first = text.splitlines()[0] if text else "(nothing)"
    return first if first == text and len(first) <= 100 else f"{first[:100]} ..."
