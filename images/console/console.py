# SPDX-License-Identifier: GPL-2.0-or-later
"""Running commands in a guest: one class, whatever carries the bytes.

A command goes to the guest program (`guest/agent.c`) as a length and its bytes, so any script
arrives as it is. The answer stands between two markers that repeat a nonce and a number of ours:
what another command left behind is never taken for an answer, no prompt is ever matched, and the
end marker's byte count proves that nothing is missing. While a command is silent, the guest
program says once a second that it is alive; a guest that does not is looked into at once, however
long the command may take.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import shlex
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
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
# For guests up to five times slower than a quick one: within this
SILENT_S = 10.0  # a live guest program, which speaks once a second, is heard of;
KILL_S = 5.0  # the end marker follows a kill
SLOWEST_BYTES_S = 20_000.0  # of a request; an emulated UART takes four times as much
UNDERWAY_BYTES = 256 << 10  # of it, in sockets' buffers, when all of it is sent
# A script that was killed and is still there: agent.c's STATUS_GIVEN_UP.
GIVEN_UP = 253
# What a script ends with whose program cannot be run: agent.c's STATUS_NO_START, the shell's two,
# and SIGBUS, of a page that cannot be read.
NOT_RUN = (254, 126, 127, 128 + 7)
DEFAULT_S = 20.0  # a command that says nothing of its own time; stretched like all deadlines
# A command that waits in the kernel for so long, in an idle guest, hangs. In seconds of the guest:
# how slow it is does not matter, since it has nothing to do.
BLOCKED_S = 20.0
# So long may wait what the kernel ends by itself: NVMe gives an admin command 60 s, I/O 30 s.
TIME_OUTS_S = 100.0
LONGER = "a command that waits so long on purpose is run with a larger blocked_s"
LET_GO_S = 1.0  # one that hangs and can be killed has ended within this


class Guest(Protocol):
    """What a console has to know of the machine behind it."""

    @property
    def scale(self) -> float:
        """Stretches every deadline: how much slower than a KVM guest this one is."""

    @property
    def directory(self) -> Path:
        """Where output goes that is too long for memory."""

    def time(self) -> float:
        """The clock of all deadlines: seconds in which the guest could run (machine.pace)."""

    def stalled_s(self) -> float:
        """For how many seconds so far the guest waited for a disk of the host's (machine.pace)."""

    def watch(self) -> None:
        """Raises what is wrong with the machine (images.errors)."""

    def kernel_log_tail(self) -> str:
        """The last lines of the kernel's log, for errors."""

    def dump_blocked_tasks(self) -> str:
        """Has the kernel write into its log which tasks are stuck; the last lines, for errors."""

    def examine(self, console: Console, why: str) -> GuestError:
        """Finds out what is wrong when a console is silent, secures evidence, and says it."""


class Console:
    """Commands to one guest over one transport, one at a time."""

    def __init__(self, name: str, transport: Transport, guest: Guest) -> None:
        self.name = name
        self._transport = transport
        self._guest = guest
        self._stream = Stream(transport, guest.watch, guest.time, guest.stalled_s, name)
        self._nonce = secrets.token_hex(16)
        self._seq = 0
        self._dead = ""
        # after the first error of the guest: raise it again, and ask nothing more of the guest
        self.fail_fast = False
        self._last_error: GuestError | None = None
        self._blocked_s = BLOCKED_S

    @contextmanager
    def may_wait(self, blocked_s: float = TIME_OUTS_S) -> Iterator[None]:
        """In the block, commands that do not say for how long they may be blocked may for so long.

        blocked_s: as of `run`.
        """
        before, self._blocked_s = self._blocked_s, blocked_s
        try:
            yield
        finally:
            self._blocked_s = before

    def wait_ready(
        self, timeout_s: float, progress: Callable[[], int] = lambda: 0, steps: int = 1
    ) -> None:
        """Waits for the guest program's greeting; raises ConsoleLost when it does not come.

        As long as `progress` changes within timeout_s it is waited on, up to `steps` times.
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

        timeout_s is for a guest of scale 1 and stretched by the scale. blocked_s: for how long the
        script may wait in the kernel while the guest is idle, in seconds of the guest (math.inf:
        up to its deadline), by default BLOCKED_S or what `may_wait` says; more is for scripts that
        wait on purpose, such as for the end of a driver's own time-outs (TIME_OUTS_S). Raises
        CommandHung and CommandTimedOut (the command was killed, the console goes on), ConsoleLost,
        GuestHung, GuestPanicked or QemuDied, each with the kernel log of that moment.
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
        """Runs a script whose output is read while it comes; as `run` otherwise.

        A command that is still running when the block is left is killed.
        """
        running = Running(self._run(command, timeout_s, stdin, blocked_s))
        lost = False
        try:
            yield running
        except GuestError:  # such a guest is asked nothing more
            lost = True
            raise
        finally:
            if running.begun and not running.ended and not lost:
                self._kill()

    def _run(
        self, command: str | bytes, timeout_s: float, stdin: bytes, blocked_s: float | None
    ) -> Generator[bytes, None, Result]:
        script = command.encode() if isinstance(command, str) else command
        begun = time.monotonic()
        self._request(b"run", _whole(script), stdin)
        limit_s = timeout_s * self._guest.scale
        blocked_s = self._blocked_s if blocked_s is None else blocked_s
        output = Capture(self._output_file())
        try:
            code = yield from self._output(self._guest.time() + limit_s, output, blocked_s)
        except pexpect.TIMEOUT:
            told = f"no end after {time.monotonic() - begun:.0f} s"
            raise self._timed_out(told, script, output) from None
        except Blocked as blocked:
            raise self._hung(blocked, script, output) from None
        except OverflowError:
            told = f"more than {FILE_LIMIT >> 30} GiB of output"
            raise self._timed_out(told, script, output) from None
        except NoHeartbeat:
            raise self._silent("no sign of life in the middle of a command") from None
        except pexpect.EOF:
            raise self._silent("the stream ended in the middle of a command") from None
        finally:
            output.close()
        if code in NOT_RUN:
            self._guest.watch()  # the guest may be unable to read its programs
        return output.result(code, time.monotonic() - begun)

    def _timed_out(self, told: str, script: bytes, output: Capture) -> GuestError:
        return self._ended(CommandTimedOut, f"{told}: {_short(script)}", output, KILL_S)

    def _hung(self, blocked: Blocked, script: bytes, output: Capture) -> GuestError:
        told = (
            f"{blocked.command or _short(script)}, pid {blocked.pid}, hangs: it has waited in the "
            f"kernel for {blocked.seconds:.0f} s while the guest is idle"
        )
        return self._ended(CommandHung, told, output, LET_GO_S, LONGER)

    def _ended(
        self,
        kind: type[GuestError],
        told: str,
        output: Capture,
        kill_s: float,
        hint: str = "",
    ) -> GuestError:
        """Ends a command that is given up; the error that says why."""
        kernel_log = self._guest.dump_blocked_tasks()  # before the kill: what the command waits for
        end = self._kill(kill_s)
        if isinstance(end, GuestError):
            return end
        stuck = "; it could not be killed: it is stuck in the kernel" if end == GIVEN_UP else ""
        what = f"{self.name} console: {told}{stuck}{output.tail()}"
        return kind(what, kernel_log=kernel_log, hint=hint)

    def log(self, line: str) -> None:
        """Writes a line (with its level, such as ``<6>``) into the guest's kernel log.

        No process is started for it. Raises as `run` does.
        """
        # without its newline the kernel would hold the line back for a continuation
        self._request(b"log", f"{line}\n".encode(), b"")
        try:
            code = _drained(self._output(self._guest.time() + SILENT_S * self._patience))
        except (pexpect.TIMEOUT, pexpect.EOF, NoHeartbeat):
            raise self._silent("a line for the kernel log was not answered") from None
        if code:
            raise CommandFailed(f"the guest cannot write to its kernel log: {line}")

    def check(
        self, command: str, timeout_s: float = DEFAULT_S, *, blocked_s: float | None = None
    ) -> str:
        """Runs a script in which every command has to succeed; returns its output.

        timeout_s, blocked_s: as of `run`. Raises CommandFailed otherwise, and what `run` raises.
        """
        result = self.run(f"set -e -o pipefail\n{command}", timeout_s, blocked_s=blocked_s)
        if result.exit_code:
            raise CommandFailed(
                f"exit code {result.exit_code} from: {_short(command.encode())}\n{result.output}"
            )
        return result.output

    def wait_until(self, condition: str, timeout_s: float = 10.0) -> None:
        """Waits until a condition (bash) holds in the guest, which is asked 50 times a second.

        timeout_s is for a quick guest, as of `run`. Raises CommandFailed when it does not hold in
        time, and what `run` raises.
        """
        line = words("wait_until", math.ceil(timeout_s), "eval", condition)
        result = self.run(line, 3 * timeout_s)
        if result.exit_code:
            told = f"not true within {timeout_s:.0f} s: {_short(condition.encode())}"
            raise CommandFailed(f"{told}\n{result.output}".rstrip())

    def put(
        self,
        source: Path | bytes,
        path: str,
        timeout_s: float = 300.0,
        *,
        blocked_s: float | None = None,
    ) -> None:
        """Writes a file in the guest and checks its sha256. timeout_s, blocked_s: as of `run`."""
        data = source if isinstance(source, bytes) else source.read_bytes()
        quoted = shlex.quote(path)
        script = f"cat > {quoted} && sha256sum < {quoted}"
        result = self.run(script, timeout_s, stdin=data, blocked_s=blocked_s)
        if result.exit_code or result.output.split()[0] != hashlib.sha256(data).hexdigest():
            raise Failure(f"cannot write {path} in the guest: {result.output.strip()}")

    def get(self, path: str, timeout_s: float = 300.0, *, blocked_s: float | None = None) -> bytes:
        """A file of the guest, its sha256 checked. timeout_s, blocked_s: as of `run`."""
        quoted = shlex.quote(path)
        result = self.run(f"cat -- {quoted}", timeout_s, blocked_s=blocked_s)
        if result.exit_code:
            raise Failure(f"cannot read {path} in the guest: {result.output.strip()}")
        told = self.check(f"sha256sum < {quoted}", timeout_s, blocked_s=blocked_s).split()[0]
        data = result.whole()
        if hashlib.sha256(data).hexdigest() != told:
            raise Failure(f"{path} changed while it was read from the guest")
        return data

    def close(self) -> None:
        """Gives the transport back."""
        self._transport.close()

    def _request(self, verb: bytes, script: bytes, stdin: bytes) -> None:
        if self._dead:
            self._guest.watch()  # what is wrong with the whole guest comes first
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
                raise pexpect.TIMEOUT("not taken")
            underway_s = min(len(request), UNDERWAY_BYTES) / SLOWEST_BYTES_S
            self._stream.seek(self._marker(b"begin\n"), limit_s + underway_s)
        except (pexpect.TIMEOUT, pexpect.EOF):
            raise self._silent(f"it took no command within {limit_s:.0f} s") from None

    def _output(
        self, deadline: float, capture: Capture | None = None, blocked_s: float = math.inf
    ) -> Generator[bytes, None, int]:
        """Yields the output up to the end marker and captures it; returns the exit code."""
        quiet_s = SILENT_S * self._patience
        pieces = self._stream.pieces(self._marker(b""), deadline, quiet_s, blocked_s)
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
        """Ends the running command; its exit code, or what is wrong with the guest.

        One that does not die is given up by a second kill.
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
        return self._silent("it did not come back after a command was killed")

    def _silent(self, why: str) -> GuestError:
        """What is wrong with a guest that does not answer."""
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
        """Stretches what leaves room already for a guest five times slower than a quick one."""
        scale = self._guest.scale
        return max(scale / 5, min(scale, 1.0))

    @property
    def dead(self) -> bool:
        """Whether this console has been given up."""
        return bool(self._dead)

    @property
    def last_bytes(self) -> bytes:
        """The end of what came over this console, markers and all."""
        return self._stream.last


def _drained(output: Generator[bytes, None, int]) -> int:
    """The exit code of a command whose output nobody follows."""
    while True:
        try:
            next(output)
        except StopIteration as stop:
            return int(stop.value)


def _whole(script: bytes) -> bytes:
    """The script with the functions of lib.bash that it names; any bytes stay as they are."""
    text = script.decode("utf-8", "surrogateescape")
    return with_functions(LIBRARY, text).encode("utf-8", "surrogateescape")


def _short(script: bytes) -> str:
    text = script.decode(errors="replace").strip().removeprefix("# ")  # see images.console.script
    first = text.splitlines()[0] if text else "(nothing)"
    return first if first == text and len(first) <= 100 else f"{first[:100]} ..."
