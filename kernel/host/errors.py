# SPDX-License-Identifier: GPL-2.0-or-later
"""The errors a user can act on.

Everything raised on purpose derives from `UserError` and is printed as one plain message: what
happened, on what, what to do next. Any other exception is a defect of Blockyard and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """Bad input: something the user typed or wrote. Exit code 2.

    what: what happened and on what, one sentence. hint: what to do next. log: where to read on.
    """

    exit_code = 2

    def __init__(self, what: str, *, hint: str = "", log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.log = log

    def __str__(self) -> str:
        lines = [self.what]
        if self.hint:
            lines.append(self.hint)
        if self.log is not None:
            lines.append(f"log: {self.log}")
        return "\n  ".join(lines)


class Failed(UserError):
    """The input was fine and the work failed: a build, a download, a boot. Exit code 1."""

    exit_code = 1


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in `known`: it offers the nearest ones, else all."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
    return UserError(f"unknown {kind} {name!r}", hint=hint)
