# SPDX-License-Identifier: GPL-2.0-or-later
"""Running programs: argument lists only, output to a log, nothing left behind.

A child runs in a session of its own, so that Ctrl-C reaches Blockyard first; whatever ends the
wait (an interrupt, a deadline) ends the child's whole process group.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kernel.host.errors import Failed

GRACE_S = 30.0  # an interrupted mmdebstrap removes its half-made root within this
TAIL_LINES = 12  # of a log, quoted in the error


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented for a message; empty when there is no log."""
    try:
        text = log.read_bytes()[-16384:].decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


@contextmanager
def reaped(
    process: subprocess.Popen[bytes],
    grace_s: float = 0.0,
    number: signal.Signals = signal.SIGTERM,
) -> Iterator[subprocess.Popen[bytes]]:
    """Ends the process group of `process` when the block is left, however that happens.

    grace_s: how long it may clean up after the signal `number` before it is killed.
    """
    try:
        yield process
    finally:
        try:
            if process.poll() is None and grace_s:
                _signal(process, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(grace_s)
        finally:  # also when the user is not patient; and what the leader left of its group
            _signal(process, signal.SIGKILL)
            process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """subprocess.Popen in a session of its own; Failed when the program is not there."""
    try:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True, **options)
    except FileNotFoundError:
        raise Failed(
            f"the program {argv[0]} is not installed",
            hint="run ./inv again: it installs or names the missing host packages",
        ) from None
    except PermissionError:
        raise Failed(f"the program {argv[0]} may not be run: permission denied") from None


def run(
    argv: Sequence[str],
    *,
    log: Path,
    doing: str,
    env: Mapping[str, str] | None = None,
    stdout: Path | None = None,
    timeout_s: float | None = None,
    hint: str = "",
    explain: Callable[[Path, int], str] | None = None,
) -> None:
    """Runs `argv` to its end with its output in `log` (or stdout in a file of its own).

    Raises Failed when it cannot be started, returns non-zero or takes more than `timeout_s`;
    the message quotes the end of the log. `doing` names the work in that message. explain: takes
    the log, and where in it this run begins, and returns what to quote in place of the end.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begin = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as log_file, _output(stdout) as out_file:
        process = start(
            argv,
            stdout=out_file or log_file,
            stderr=log_file,
            env=None if env is None else {**os.environ, **env},
        )
        with reaped(process, GRACE_S):
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                raise Failed(f"{doing}: no end after {timeout_s:.0f} s", log=log) from None
    if code:
        quoted = (explain(log, begin) if explain else "") or tail(log)
        advice = hint or _known_cause(log)
        raise Failed(
            f"{doing}: {Path(argv[0]).name} ended with {_status(code)}\n{quoted}",
            hint="" if advice in quoted else advice,
            log=log,
        )


@contextmanager
def _output(path: Path | None) -> Iterator[int | None]:
    if path is None:
        yield None
        return
    with open(path, "wb") as file:
        yield file.fileno()


def _status(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _known_cause(log: Path) -> str:
    """What a log's last lines say about the machine rather than the work."""
    text = tail(log, 60)
    if "No space left on device" in text:
        return "the disk is full: free some space, or set BLOCKYARD_CACHE to another disk"
    if "Temporary failure resolving" in text or "Could not resolve" in text:
        return "no network, or no name service: check it, or set BLOCKYARD_MIRROR"
    if "Connection refused" in text or "Could not connect" in text or "Unable to connect" in text:
        return "the Debian mirror does not answer: check the network, or set BLOCKYARD_MIRROR"
    if "setting up uid map: Permission denied" in text or "No permissions to create" in text:
        return "user namespaces are not allowed here: see Troubleshooting in README.md"
    return ""
