# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands as text for logs and people: quoted for bash, with secrets in URLs hidden.

A command in the sandbox is a long line: kernel/scripts/sandbox, bwrap's arguments, then the command
itself. A log begins with the whole line, which can be pasted into a shell, and with the inner
command; ``-v`` prints the inner command only.
"""

from __future__ import annotations

import logging
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blockyard.kernel.host import redact
from blockyard.kernel.host.settings import PROJECT

SANDBOX = PROJECT / "kernel" / "scripts" / "sandbox"  # starts bwrap

# Process 1 of a supervised sandbox. It reaps all others, so that their CPU time is counted for
# bwrap, and it limits the number of processes inside without the user's other processes.
FIRST = ("bash", "-c", '[ -z "$1" ] || ulimit -u "$1"; shift; "$@"; exit $?', "bash")

_COMMAND = "$ "
_INSIDE = "# in the sandbox: "
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_log = logging.getLogger(__name__)


def command_of(argv: Sequence[str]) -> Sequence[str]:
    """The inner command of an argument list of `Sandbox.argv`; any other list unchanged."""
    if not argv or argv[0] != str(SANDBOX) or "--chdir" not in argv:
        return argv
    command = argv[argv.index("--", argv.index("--chdir")) + 1 :]
    supervised = tuple(command[: len(FIRST)]) == FIRST
    return command[len(FIRST) + 1 :] if supervised else command


def is_offline(argv: Sequence[str]) -> bool:
    """Whether an argument list runs a command in a sandbox without network."""
    return bool(argv) and argv[0] == str(SANDBOX) and "--unshare-net" in argv


def line(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """A command as one line for bash; env: variables added to the caller's environment."""
    variables = [f"{name}={value}" for name, value in (env or {}).items()]
    words = [*(["env", *variables] if variables else []), *argv]
    return redact.text(" ".join(map(_quoted, words)))


def _quoted(word: str) -> str:
    """A word quoted for bash; as ``$'…'`` if it has control characters."""
    if not _CONTROL.search(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", escaped) + "'"


def heading(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """The lines above a command's output in a log: the command, and the one in the sandbox."""
    inside = command_of(argv)
    more = f"{_INSIDE}{line(inside)}\n" if inside is not argv else ""
    return f"{_COMMAND}{line(argv, env)}\n{more}"


def without_headings(text: str) -> str:
    """A log without the lines of `heading`: only what programs printed."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith((_COMMAND, _INSIDE)))


def status(code: int) -> str:
    """An exit code as text, such as ``exit code 2``; -n is signal n: ``signal SIGKILL``."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Timed:
    """Logs a command when it starts, and how long it took when it ends (level INFO, ``-v``)."""

    def __init__(self, argv: Any) -> None:
        """Logs the start. argv: a list of str, typed like `subprocess.Popen.args`."""
        self._started = time.monotonic()
        self._name = ""
        if _log.isEnabledFor(logging.INFO):
            inside = command_of(argv)
            where = "" if inside is argv else "  # in the sandbox"
            self._name = Path(inside[0]).name
            _log.info("$ %s%s", line(inside), where)

    def finish(self, code: int | None) -> None:
        """Logs the end; code: the exit code, -n for signal n, None when it is unknown."""
        if self._name:
            how = f", {status(code)}" if code else ""
            _log.info("%s: %.2f s%s", self._name, time.monotonic() - self._started, how)


def ask(
    argv: Sequence[str], *, timeout_s: float | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a short command and captures its output; text: its standard input.

    Raises OSError when it cannot be started, subprocess.TimeoutExpired after `timeout_s`.
    """
    timed = Timed(argv)
    code = None
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout_s)
        code = done.returncode
        return done
    finally:
        timed.finish(code)
