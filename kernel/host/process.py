# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs programs: argument lists only, output to a log, no process left behind.

A child runs in a session of its own, so that Ctrl-C reaches Blockyard first. When the wait ends
early (an interrupt, a timeout), the child's whole process group is killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TypedDict, Unpack

from blockyard.kernel.host import causes, cgroup, commands, host_packages
from blockyard.kernel.host.commands import command_of, is_offline
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.limits import Limits
from blockyard.kernel.host.watch import Exceeded, Watch, raised_by

GRACE_S = 30.0  # time to clean up; an interrupted mmdebstrap removes its half-made root
TAIL_LINES = 12  # lines of a log that an error quotes
TAIL_BYTES = 16384  # bytes of a log that are read for it


def tail(log: Path, lines: int = TAIL_LINES, start: int = 0) -> str:
    """The last lines of a log after offset `start`, indented for a message; empty without a log."""
    text = tail_text(log, start=start)
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def tail_text(log: Path, size: int = TAIL_BYTES, start: int = 0) -> str:
    """The last `size` bytes of a log after offset `start`, as text; empty without a log."""
    try:
        return end_of(log, size, start).decode(errors="replace")
    except OSError:
        return ""


def end_of(log: Path, size: int = TAIL_BYTES, start: int = 0) -> bytes:
    """The last `size` bytes of a file after offset `start`. Raises OSError."""
    with open(log, "rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - size))
        return file.read(size)


@contextmanager
def reaped(
    process: subprocess.Popen[bytes],
    grace_s: float = 0.0,
    number: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Kills the process group of `process` at the end of the block, also after an exception.

    With ``-v`` prints the command and how long the block took.

    grace_s: how long the process may clean up after the signal `number` before it is killed.
    """
    timed = commands.Timed(process.args)
    try:
        yield process
    finally:
        try:
            if process.poll() is None and grace_s:
                _signal(process, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
        finally:  # also after a second Ctrl-C; and for the rest of the group of a dead leader
            _signal(process, signal.SIGKILL)
            timed.finish(process.wait())


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


class PopenOptions(TypedDict, total=False):
    """Arguments of subprocess.Popen that `start` hands on."""

    cwd: Path
    env: Mapping[str, str] | None
    stdout: int | IO[bytes]
    stderr: int | IO[bytes]
    pass_fds: Sequence[int]


def start(argv: Sequence[str], **options: Unpack[PopenOptions]) -> subprocess.Popen[bytes]:
    """Starts a program in a session of its own; options: of `subprocess.Popen`.

    Raises Failure when the program is not installed or may not be run.
    """
    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    except FileNotFoundError:
        raise Failure(
            f"the program {argv[0]} is not installed",
            hint=host_packages.hint(argv[0]),
        ) from None
    except PermissionError:
        raise Failure(f"the program {argv[0]} may not be run: permission denied") from None


def run(
    argv: Sequence[str],
    *,
    log: Path,
    doing: str,
    env: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    timeout_s: float | None = None,
    hint: str = "",
    limits: Limits | None = None,
    outputs: Sequence[Path] = (),
    used: Callable[[float], None] | None = None,
    explain: Callable[[Path, int], str] | None = None,
    before: str = "",
) -> None:
    """Runs `argv` to its end and appends its output to `log`; stdout: a file for its stdout.

    Above the output the log gets the command (`commands.heading`), and above that `before`: lines
    that are needed to repeat it.
    limits: of the program; outputs: the folders that it writes to, for `Limits.output_mib`.
    used: is called with the CPU seconds of the process and its reaped children (in a supervised
    sandbox: of all inside), however it ends. explain: takes the log and the offset at which this
    run begins, and returns what to quote instead of the end of the log. hint: what to do when it
    fails and neither a limit nor a full disk is the cause.

    Raises Failure when it cannot be started, exits non-zero, or exceeds `timeout_s` or a limit. The
    message quotes the end of the log; `doing` names the work in it.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    limits = limits or Limits()
    if timeout_s is not None:
        limits = replace(limits, time_s=timeout_s)
    with (
        open(log, "ab", buffering=0) as log_file,
        _output(stdout) as out_file,
        cgroup.group(limits.memory_mib, limits.processes) as group,
    ):
        with suppress(OSError):  # on a full disk the program reports it
            heading = before + commands.heading(argv, env)
            log_file.write(heading.encode(errors="surrogateescape"))
        begin = log_file.seek(0, os.SEEK_END)
        process = start(
            argv,
            stdout=out_file or log_file,
            stderr=log_file,
            env={**os.environ, **(env or {}), "BLOCKYARD_CGROUPS": group.entrances},
        )
        watch = Watch(process, log, limits, outputs)
        try:
            with reaped(process, GRACE_S):
                code = watch.wait()
            if not code:
                watch.check_outputs()
        except Exceeded as error:
            more = error.hint
            if limits.time_s is not None and timeout_s is None and not more:
                more = raised_by("build_timeout_s")
            raise Failure(f"{doing}: {error.what}", hint=more, log=log) from None
        finally:
            watch.cut_log()
            if used is not None:
                used(watch.cpu_s)
        exceeded = group.exceeded
    if code:
        name = Path(command_of(argv)[0]).name
        quoted = (explain(log, begin) if explain else "") or tail(log, start=begin)
        advice = causes.advice(
            f"{quoted}\n{tail(log, 60, begin)}",
            code,
            log,
            limits,
            exceeded,
            offline=is_offline(argv),
            hint=hint,
        )
        what = f"{doing}: {name} ended with {commands.status(code)}\n{quoted}"
        raise Failure(what, hint=advice, log=log)


@contextmanager
def _output(path: Path | None) -> Iterator[int | None]:
    if path is None:
        yield None
        return
    with open(path, "wb") as file:
        yield file.fileno()
