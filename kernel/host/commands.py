# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands as people read, paste and repeat them.

A command that runs in the sandbox is a long line (kernel/scripts/sandbox and bwrap's arguments,
then the command). The whole line can be pasted into a shell; the command inside says what is done.
Logs begin with both, ``-v`` prints the second. Secrets in URLs are hidden.
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

SANDBOX = PROJECT / "kernel" / "scripts" / "sandbox"  # what starts bwrap

# Process 1 inside, when the sandbox is supervised: it collects all others, so their CPU time
# arrives at whoever waits for bwrap, and it limits their number where the user's own do not count.
FIRST = ("bash", "-c", '[ -z "$1" ] || ulimit -u "$1"; shift; "$@"; exit $?', "bash")

_COMMAND = "$ "
_INSIDE = "# in the sandbox: "
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_log = logging.getLogger(__name__)


def command_of(argv: Sequence[str]) -> Sequence[str]:
    """What an argument list runs: inside, when it is one of `Sandbox.argv`."""
    if not argv or argv[0] != str(SANDBOX) or "--chdir" not in argv:
        return argv
    command = argv[argv.index("--", argv.index("--chdir")) + 1 :]
    supervised = tuple(command[: len(FIRST)]) == FIRST
    return command[len(FIRST) + 1 :] if supervised else command


def is_offline(argv: Sequence[str]) -> bool:
    """Whether what it runs has no network."""
    return bool(argv) and argv[0] == str(SANDBOX) and "--unshare-net" in argv


def line(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """A command as one line for bash; env: variables that it gets besides the caller's."""
    variables = [f"{name}={value}" for name, value in (env or {}).items()]
    words = [*(["env", *variables] if variables else []), *argv]
    return redact.text(" ".join(map(_quoted, words)))


def _quoted(word: str) -> str:
    """A word for a shell; with a newline or another control character, in bash's own quotes."""
    if not _CONTROL.search(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", escaped) + "'"


def heading(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """The lines above a command's output in a log."""
    inside = command_of(argv)
    more = f"{_INSIDE}{line(inside)}\n" if inside is not argv else ""
    return f"{_COMMAND}{line(argv, env)}\n{more}"


def without_headings(text: str) -> str:
    """A log without those lines: what the programs printed."""
    lines = text.splitlines(keepends=True)
    return "".join(one for one in lines if not one.startswith((_COMMAND, _INSIDE)))


def status(code: int) -> str:
    """How a process ended, from its exit code: -n for signal n."""
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


class Timed:
    """A command that begins now, logged with what it was and how long it took."""

    def __init__(self, argv: Any) -> None:
        """argv: as subprocess.Popen has it in `args`; all of ours are lists of str."""
        self._begun = time.monotonic()
        self._name = ""
        if _log.isEnabledFor(logging.INFO):
            inside = command_of(argv)
            where = "" if inside is argv else "  # in the sandbox"
            self._name = Path(inside[0]).name
            _log.info("$ %s%s", line(inside), where)

    def ended(self, code: int | None) -> None:
        """Logs the end; code: the exit code, -n for signal n, None when it is not known."""
        if self._name:
            how = f", {status(code)}" if code else ""
            _log.info("%s: %.2f s%s", self._name, time.monotonic() - self._begun, how)


def ask(
    argv: Sequence[str], *, timeout_s: float | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a program that answers soon; text: its standard input.

    Raises OSError when it cannot be started, subprocess.TimeoutExpired when it does not end.
    """
    timed = Timed(argv)
    code = None
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout_s)
        code = done.returncode
        return done
    finally:
        timed.ended(code)
