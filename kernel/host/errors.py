# SPDX-License-Identifier: GPL-2.0-or-later
"""Errors that a user can act on, and the exit codes of their kinds.

Every deliberate error derives from `BlockyardError` and is printed as one plain message: what
happened, on what, what to do next. Any other exception is a defect of Blockyard and keeps its
traceback.

    BlockyardError
        UsageError    bad input: an option, a manifest, a path; nothing was tried
        Failure       the input was fine and the work failed: a download, a build, a full disk
            GuestError (images.errors)    a guest did not boot, hung or died

Code that continues after an error catches the narrowest class: a dead guest is not a usage error.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

from blockyard.kernel.host.installation import as_typed


class ExitCode(IntEnum):
    """Exit codes of `./inv`, a promise of README.md to scripts, CI and `git bisect run`.

    `git bisect run` skips a commit on 125 and stops on codes above 127, so an end that says
    nothing about the commit (a signal, a defect of Blockyard) has such a code.
    """

    OK = 0
    FAILED = 1  # a test failed, a guest did not boot or died
    USAGE = 2  # bad input: an option, a manifest, a topology
    UNTESTABLE = 125  # nothing was tested: not fetched, not patched, not built, disk full
    HANGUP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    PIPE = 128 + signal.SIGPIPE  # the reader of our output closed it
    TERMINATED = 128 + signal.SIGTERM
    DEFECT = 255  # of Blockyard itself; Python's own 1 would mean a failed test


EXIT_CODES = {
    ExitCode.OK: "every test that could run passed, or failed as a known failure",
    ExitCode.FAILED: "a test failed, a guest did not boot or died; `doctor`, `check`: a problem",
    ExitCode.USAGE: "bad input: an option, a manifest, a topology",
    ExitCode.UNTESTABLE: "nothing was tested: source not fetched, patch or build failed, no guest "
    "booted for `test`, every test was skipped, disk full",
    ExitCode.HANGUP: "ended by SIGHUP: the terminal was closed",
    ExitCode.INTERRUPTED: "ended by Ctrl-C (SIGINT)",
    ExitCode.PIPE: "the reader of the output closed it",
    ExitCode.TERMINATED: "ended by SIGTERM",
    ExitCode.DEFECT: "a defect of Blockyard, with a traceback",
}  # meanings, for the documentation


class BlockyardError(Exception):
    """Base class of errors with a message for users; raise a subclass.

    what: what happened and on what, one sentence. hint: what to do next. log: file with details.
    """

    exit_code: int

    def __init__(self, what: str, *, hint: str = "", log: Path | None = None) -> None:
        what = as_typed(what)
        super().__init__(what)
        self.what = what
        self.hint = as_typed(hint)
        self.log = log

    def __str__(self) -> str:
        lines = [self.what]
        if self.hint:
            lines.append(self.hint)
        if self.log is not None:
            lines.append(f"log: {self.log}")
        return "\n  ".join(lines)


class UsageError(BlockyardError):
    """Bad input: an option, a file or a path of the user's. Nothing was run."""

    exit_code = ExitCode.USAGE


class Failure(BlockyardError):
    """The input was fine and the work failed: a download, a patch, a build, a full disk."""

    exit_code = ExitCode.UNTESTABLE


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in `known`; suggests similar names, else lists all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"unknown {kind} {name!r}", hint=hint)
