# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors a user can act on, and the exit codes that say of which kind they are.

Everything raised on purpose derives from `BlockyardError` and is printed as one plain message:
what happened, on what, what to do next. Any other exception is a defect of Blockyard and keeps its
traceback.

    BlockyardError
        UsageError    bad input: an option, a manifest, a path; nothing was tried
        Failure       the input was fine and the work failed: a download, a build, a full disk
            GuestError (images.errors)    a guest did not come up, hung or died

Code that goes on after an error catches the narrowest class that it means: a guest that died is
not a usage error.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path

from blockyard.kernel.host.installation import as_typed


class ExitCode(IntEnum):
    """How `./inv` ends. README.md promises these numbers to scripts, CI and `git bisect run`.

    `git bisect run` takes 125 for a commit that cannot be tested, and stops at what is above 127:
    what is no answer about the commit has such a number.
    """

    OK = 0
    FAILED = 1  # a test failed, a guest did not come up or died: the answer is no
    USAGE = 2  # bad input: an option, a manifest, a topology
    UNTESTABLE = 125  # nothing was tested: not fetched, not patched, not built, disk full
    HANGUP = 128 + signal.SIGHUP
    INTERRUPTED = 128 + signal.SIGINT
    PIPE = 128 + signal.SIGPIPE  # the reader of our output went away
    TERMINATED = 128 + signal.SIGTERM
    DEFECT = 255  # of Blockyard itself; Python's own 1 would be taken for a test that failed


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
}  # what each code means, for documentation


class BlockyardError(Exception):
    """An error with a message for users; raise one of its subclasses.

    what: what happened and on what, one sentence. hint: what to do next. log: where to read on.
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
    """Bad input: something the user typed or wrote."""

    exit_code = ExitCode.USAGE


class Failure(BlockyardError):
    """The input was fine and the work failed: a download, a patch, a build, a full disk."""

    exit_code = ExitCode.UNTESTABLE


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in `known`: it offers the nearest ones, else all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UsageError(f"unknown {kind} {name!r}", hint=hint)
