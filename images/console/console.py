# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs commands in a guest, over any transport.

A command is sent to the guest program (`guest/agent.c`) as a length and its bytes, so any script
arrives unchanged. The answer is between two markers that repeat our nonce and sequence number: the
output of an earlier command is never taken for it, no shell prompt is matched, and the byte count
in the end marker shows that nothing is missing. While a command is silent, the guest program sends
a heartbeat every second. When that stops, the guest is examined at once, whatever the time limit of
the command.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import shlex
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import pexpect

from blockyard.images.console.result import FILE_LIMIT, Capture, Result
from blockyard.images.console.running import Running
from blockyard.images.console.script import LIBRARY, with_functions, words
from blockyard.images.console.stream import MARK, Blocked, NoHeartbeat, Stream, Transport
from blockyard.images.errors import (
    CommandFailed,
    CommandHung,
    CommandTimedOut,
    ConsoleLost,
    GuestError,
)
from blockyard.kernel.host.errors import Failure

READY = MARK + b"BLOCKYARD ready\n"
# Time limits that hold for guests up to five times slower than a KVM guest:
SILENT_S = 10.0  # for a heartbeat; a live guest program sends one every second
KILL_S = 5.0  # from a kill to the end marker
SLOWEST_BYTES_S = 20_000.0  # bytes/s at which a request is sent; an emulated UART is 4 times faster
UNDERWAY_BYTES = 256 << 10  # of a request, still in socket buffers when all of it is sent
# Status of a script that was killed and did not die: agent.c's STATUS_GIVEN_UP.
GIVEN_UP = 253
# Status when a program cannot be run: agent.c's STATUS_NO_START, the shell's two, and SIGBUS (a
# page of the program cannot be read).
NOT_RUN = (254, 126, 127, 128 + 7)
DEFAULT_S = 20.0  # time limit of a command that sets none; scaled like all deadlines
# A command that is blocked in the kernel of an idle guest for so long hangs. In seconds of the
# guest, not scaled: an idle guest is not slowed down.
BLOCKED_S = 20.0
# For waits that the kernel's own timeouts end: NVMe's are 60 s for an admin command, 30 s for I/O.
TIME_OUTS_S = 100.0
LONGER = "for a command that waits this long on purpose, pass a larger blocked_s"
LET_GO_S = 1.0  # from the kill of a command that hangs to its end, if it can be killed


class Guest(Protocol):
    """The machine behind a console, as far as the console needs it."""

    @property
    def scale(self) -> float:
        """How much slower than a KVM guest this guest is. Every deadline is multiplied by it."""

    @property
    def directory(self) -> Path:
        """The folder for output that is too long for memory."""

    def time(self) -> float:
        """The clock of all deadlines: seconds in which the guest could run (machine.pace)."""

    def stalled_s(self) -> float:
        """Seconds so far in which the guest waited for a disk of the host (machine.pace)."""

    def watch(self) -> None:
        """Raises an error of images.errors when the machine has failed."""

    def kernel_log_tail(self) -> str:
        """The last lines of the kernel log, for errors."""

    def dump_blocked_tasks(self) -> str:
        """Makes the kernel log its blocked tasks; the last lines of the log, for errors."""

    def examine(self, console: Console, why: str) -> GuestError:
        """Diagnoses a silent console and saves evidence; the error to raise."""


class Console:
    """Runs commands in one guest over one transport, one at a time."""

    def __init__(self, name: str, transport: Transport, guest: Guest) -> None:
        self.name = name
        self._transport = transport
        self._guest = guest
        self._stream = Stream(transport, guest.watch, guest.time, guest.stalled_s, name)
        self._nonce = secrets.token_hex(16)
        self._seq = 0
        self._dead = ""
        # after the first GuestError: raise it again for every later command
        self.fail_fast = False
        self._last_error: GuestError | None = None
        self._blocked_s = BLOCKED_S

    @contextmanager
    def may_wait(self, blocked_s: float = TIME_OUTS_S) -> Iterator[None]:
        """Within the block, `blocked_s` is the default of commands that do not pass one.

        See `run` for its meaning.
        """
        before, self._blocked_s = self._blocked_s, blocked_s
        try:
            yield
        finally:
            self._blocked_s = before

    def wait_ready(
        self, timeout_s: float, progress: Callable[[], int] = lambda: 0, steps: int = 1
    ) -> None:
        """Waits for the guest program's greeting; raises ConsoleLost when it does not arrive.

        Waits timeout_s, and again, up to `steps` times, as long as `progress` has changed.
        """
        for _ in range(steps):
            before = progress()
            try:
                self._stream.seek(READY, timeout_s)
                return
            except pexpect.EOF:
                break
            except pexpect.TIMEOUT:
                if progress() == before:
                    break
        self._guest.watch()
        raise self._give_up(f"the guest did not answer within {timeout_s:.0f} s")

    def run(
        self,
        command: str | bytes,
        timeout_s: float = DEFAULT_S,
        *,
        stdin: bytes = b"",
        blocked_s: float | None = None,
    ) -> Result:
        """Runs a bash script in the guest.

        timeout_s: for a guest of scale 1; multiplied by the guest's scale. blocked_s: how long the
        script may be blocked in the kernel while the guest is idle, in seconds of the guest
        (math.inf: until the deadline). The default is BLOCKED_S or that of `may_wait`; pass more
        for scripts that wait on purpose, such as for a driver's own timeouts (TIME_OUTS_S). Raises
        CommandHung and CommandTimedOut (the command was killed, the console still works),
        ConsoleLost, GuestHung, GuestPanicked or QemuDied, each with the end of the kernel log.
        """
        if self._last_error:
            raise self._last_error
        try:
            return Running(self._run(command, timeout_s, stdin, blocked_s)).result()
        except GuestError as error:
            if self.fail_fast:
                self._last_error = error
            raise

    @contextmanager
    def follow(
        self,
        command: str | bytes,
        timeout_s: float = DEFAULT_S,
        *,
        stdin: bytes = b"",
        blocked_s: float | None = None,
    ) -> Iterator[Running]:
        """Like `run`, but the caller reads the output while it is printed.

        A command that is still running when the block is left is killed.
        """
        running = Running(self._run(command, timeout_s, stdin, blocked_s))
        lost = False
        try:
            yield running
        except GuestError:  # the guest cannot answer a kill
            lost = True
            raise
        finally:
            running.close()
            if running.started and not running.finished and not lost:
                self._kill()

    def _run(
        self, command: str | bytes, timeout_s: float, stdin: bytes, blocked_s: float | None
    ) -> Generator[bytes, None, Result]:
        script = command.encode() if isinstance(command, str) else command
        started = time.monotonic()
        self._request(b"run", _whole(script), stdin)
        limit_s = timeout_s * self._guest.scale
        blocked_s = self._blocked_s if blocked_s is None else blocked_s
        output = Capture(self._output_file())
        try:
            code = yield from self._output(self._guest.time() + limit_s, output, blocked_s)
        except pexpect.TIMEOUT:
            problem = f"timed out after {time.monotonic() - started:.0f} s"
            raise self._timed_out(problem, script, output) from None
        except Blocked as blocked:
            raise self._hung(blocked, script, output) from None
        except OverflowError:
            problem = f"more than {FILE_LIMIT >> 30} GiB of output"
            raise self._timed_out(problem, script, output) from None
        except NoHeartbeat:
            raise self._silent("no heartbeat during a command") from None
        except pexpect.EOF:
            raise self._silent("the stream ended during a command") from None
        finally:
            output.close()
        if code in NOT_RUN:
            self._guest.watch()  # the guest may be unable to read its programs
        return output.result(code, time.monotonic() - started)

    def _timed_out(self, problem: str, script: bytes, output: Capture) -> GuestError:
        return self._abort(CommandTimedOut, f"{problem}: {_short(script)}", output, KILL_S)

    def _hung(self, blocked: Blocked, script: bytes, output: Capture) -> GuestError:
        problem = (
            f"{blocked.command or _short(script)}, pid {blocked.pid}, hangs: it has waited in the "
            f"kernel for {blocked.seconds:.0f} s while the guest is idle"
        )
        return self._abort(CommandHung, problem, output, LET_GO_S, LONGER)

    def _abort(
        self,
        kind: type[GuestError],
        problem: str,
        output: Capture,
        kill_s: float,
        hint: str = "",
    ) -> GuestError:
        """Kills the running command; the error to raise."""
        kernel_log = self._guest.dump_blocked_tasks()  # before the kill: shows where it is blocked
        end = self._kill(kill_s)
        if isinstance(end, GuestError):
            return end
        stuck = "; it could not be killed: it is stuck in the kernel" if end == GIVEN_UP else ""
        what = f"{self.name} console: {problem}{stuck}{output.tail()}"
        return kind(what, kernel_log=kernel_log, hint=hint)

    def log(self, line: str) -> None:
        """Writes a line (with its level, such as ``<6>``) into the guest's kernel log.

        Starts no process in the guest. Raises CommandFailed, and what `run` raises.
        """
        # without the newline the kernel would wait for a continuation of the line
        self._request(b"log", f"{line}\n".encode(), b"")
        try:
            code = _drained(self._output(self._guest.time() + SILENT_S * self._patience))
        except (pexpect.TIMEOUT, pexpect.EOF, NoHeartbeat):
            raise self._silent("no answer to a line for the kernel log") from None
        if code:
            raise CommandFailed(f"the guest cannot write to its kernel log: {line}")

    def check(
        self, command: str, timeout_s: float = DEFAULT_S, *, blocked_s: float | None = None
    ) -> str:
        """Runs a script in which every command has to succeed; returns its output.

        timeout_s, blocked_s: see `run`. Raises CommandFailed, and what `run` raises.
        """
        result = self.run(f"set -e -o pipefail\n{command}", timeout_s, blocked_s=blocked_s)
        if result.exit_code:
            raise CommandFailed(
                f"exit code {result.exit_code} from: {_short(command.encode())}\n{result.output}"
            )
        return result.output

    def wait_until(self, condition: str, timeout_s: float = 10.0) -> None:
        """Waits until a bash condition is true in the guest; tests it 50 times a second.

        timeout_s: for a guest of scale 1, see `run`. Raises CommandFailed when the condition is not
        true in time, and what `run` raises.
        """
        line = words("wait_until", math.ceil(timeout_s), "eval", condition)
        result = self.run(line, 3 * timeout_s)
        if result.exit_code:
            problem = f"not true within {timeout_s:.0f} s: {_short(condition.encode())}"
            raise CommandFailed(f"{problem}\n{result.output}".rstrip())

    def put(
        self,
        source: Path | bytes,
        path: str,
        timeout_s: float = 300.0,
        *,
        blocked_s: float | None = None,
    ) -> None:
        """Writes a file in the guest and verifies its sha256.

        timeout_s, blocked_s: see `run`. Raises Failure, and what `run` raises.
        """
        data = source if isinstance(source, bytes) else source.read_bytes()
        quoted = shlex.quote(path)
        script = f"cat > {quoted} && sha256sum < {quoted}"
        result = self.run(script, timeout_s, stdin=data, blocked_s=blocked_s)
        if result.exit_code or result.output.split()[0] != hashlib.sha256(data).hexdigest():
            raise Failure(f"cannot write {path} in the guest: {result.output.strip()}")

    def get(self, path: str, timeout_s: float = 300.0, *, blocked_s: float | None = None) -> bytes:
        """The contents of a file in the guest, with the sha256 verified.

        timeout_s, blocked_s: see `run`. Raises Failure, and what `run` raises.
        """
        quoted = shlex.quote(path)
        result = self.run(f"cat -- {quoted}", timeout_s, blocked_s=blocked_s)
        if result.exit_code:
            raise Failure(f"cannot read {path} in the guest: {result.output.strip()}")
        sha256 = self.check(f"sha256sum < {quoted}", timeout_s, blocked_s=blocked_s).split()[0]
        data = result.whole()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Failure(f"{path} changed while it was read from the guest")
        return data

    def close(self) -> None:
        """Closes the transport."""
        self._transport.close()

    def _request(self, verb: bytes, script: bytes, stdin: bytes) -> None:
        if self._dead:
            self._guest.watch()  # an error of the whole guest comes first
            raise ConsoleLost(f"{self.name} console: {self._dead}")
        self._seq += 1
        header = b"BLOCKYARD %s %d %s %d %d\n" % (
            self._nonce.encode(),
            self._seq,
            verb,
            len(script),
            len(stdin),
        )
        limit_s = SILENT_S * self._patience
        request = header + script + stdin
        deadline = self._guest.time() + limit_s + len(request) / SLOWEST_BYTES_S
        try:
            if not self._stream.send_all(request, deadline):
                raise pexpect.TIMEOUT("not accepted")
            underway_s = min(len(request), UNDERWAY_BYTES) / SLOWEST_BYTES_S
            self._stream.seek(self._marker(b"begin\n"), limit_s + underway_s)
        except (pexpect.TIMEOUT, pexpect.EOF):
            raise self._silent(f"it did not accept a command within {limit_s:.0f} s") from None

    def _output(
        self, deadline: float, capture: Capture | None = None, blocked_s: float = math.inf
    ) -> Generator[bytes, None, int]:
        """Yields and captures the output up to the end marker; returns the exit code."""
        quiet_s = SILENT_S * self._patience
        marker = self._marker(b"")
        with closing(self._stream.pieces(marker, deadline, quiet_s, blocked_s)) as pieces:
            while True:
                try:
                    piece = next(pieces)
                except StopIteration as stop:
                    code, size = stop.value
                    break
                if capture is not None:
                    capture.add(piece)
                yield piece
        if capture is not None and capture.size != size:
            raise self._give_up(f"{capture.size} bytes of output arrived, the guest sent {size}")
        return int(code)

    def _marker(self, rest: bytes) -> bytes:
        return MARK + b"BLOCKYARD %s %d %s" % (self._nonce.encode(), self._seq, rest)

    def _kill(self, kill_s: float = KILL_S) -> int | GuestError:
        """Kills the running command; its exit code, or the error when the guest does not answer.

        A second kill gives up a command that does not die.
        """
        limit_s = kill_s * self._patience
        kill = b"BLOCKYARD %s %d kill\n" % (self._nonce.encode(), self._seq)
        for _ in range(2):
            deadline = self._guest.time() + limit_s
            try:
                if self._stream.send_all(kill, deadline):
                    return _drained(self._output(deadline))
            except pexpect.TIMEOUT:
                continue
            except (pexpect.EOF, NoHeartbeat):
                break
        return self._silent("it did not answer after a command was killed")

    def _silent(self, why: str) -> GuestError:
        """The error of a guest that does not answer; the console is unusable from now on."""
        self._dead = why
        self._guest.watch()
        return self._guest.examine(self, why)

    def _give_up(self, why: str) -> ConsoleLost:
        self._dead = why
        return ConsoleLost(f"{self.name} console: {why}", kernel_log=self._guest.kernel_log_tail())

    def _output_file(self) -> Path:
        return self._guest.directory / f"output-{self.name}-{self._seq}"

    @property
    def _patience(self) -> float:
        """The scale for limits that already hold for a guest five times slower than under KVM."""
        scale = self._guest.scale
        return max(scale / 5, min(scale, 1.0))

    @property
    def dead(self) -> bool:
        """Whether this console no longer works."""
        return bool(self._dead)

    @property
    def last_bytes(self) -> bytes:
        """The last bytes received over this console, with the markers."""
        return self._stream.last


def _drained(output: Generator[bytes, None, int]) -> int:
    """Reads the output to its end and discards it; the exit code."""
    while True:
        try:
            next(output)
        except StopIteration as stop:
            return int(stop.value)


def _whole(script: bytes) -> bytes:
    """The script with the functions of lib.bash that it names; invalid UTF-8 is kept."""
    text = script.decode("utf-8", "surrogateescape")
    return with_functions(LIBRARY, text).encode("utf-8", "surrogateescape")


def _short(script: bytes) -> str:
    text = script.decode(errors="replace").strip().removeprefix("# ")  # see images.console.script
    first = text.splitlines()[0] if text else "(nothing)"
    return first if first == text and len(first) <= 100 else f"{first[:100]} ..."
