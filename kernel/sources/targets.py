# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks a patch against the files of a tree where GNU patch does not.

GNU patch renames over an existing file, applies hunks without context anywhere, and reverses a
diff without hunks on any tree. git rejects the first two, and so does this module. As with git, all
files of a patch change at once: a file may take the name of one that the same patch removes.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from blockyard.kernel.sources import prefixes
from blockyard.kernel.sources.unified import NULL, FileDiff

NO_CONTEXT = "has neither context nor a removed line, so it fits anywhere"
_GIT = ".git"


def objections(tree: Path, files: Sequence[FileDiff]) -> list[str]:
    """Why a patch must not be applied to a tree, a line for each reason; empty if it may.

    files: of one patch, with the prefixes a/ and b/.
    """
    reasons = [reason for file in files if (reason := _of_git(file))]
    if reasons:
        return list(dict.fromkeys(reasons))
    moved = {_old(file) for file in files if _takes_away(file)}
    state = _State(tree)
    for file in files:
        old, new = _old(file), _new(file)
        if (
            _makes(file)
            and new
            and state.size(new) is not None
            and (new in state.changed or new not in moved)
        ):
            reasons.append(f"{new}: the file already exists")
        elif file.renames and old and new and state.size(old) is None and not _before(tree, old):
            reasons.append(f"{old}: no such file")
        if file.old != NULL and (state.size(old) or state.size(new)):
            reasons += [
                f"{new or old}: hunk {number} (line {hunk.line}) {NO_CONTEXT}"
                for number, hunk in enumerate(file.hunks, 1)
                if not hunk.old
            ]
        state.change(file)
    return reasons


def shows(tree: Path, files: Sequence[FileDiff]) -> bool:
    """Whether the files of a tree look as if a patch was applied; the hunks are not compared.

    At least one file of the patch must exist: missing files alone prove nothing.
    """
    exists = False
    for file in files:
        old, new = _old(file), _new(file)
        if _takes_away(file) and _before(tree, old):
            return False
        if not new:
            continue
        status = _status(tree, new)
        if status is None or not stat.S_ISREG(status.st_mode):
            return False
        if file.old == NULL and not file.hunks and status.st_size:
            return False
        if file.copies and not file.hunks and not _same(tree, old, new):
            return False
        if file.mode and bool(status.st_mode & stat.S_IXUSR) != file.mode.endswith("755"):
            return False
        if any(not hunk.new for hunk in file.hunks):  # GNU patch would reverse it at any line
            return False
        exists = True
    return exists


def _of_git(file: FileDiff) -> str:
    """The reason against a name with .git, which git does not allow in commits; else empty."""
    for name in (file.old, file.new):
        if name != NULL and _GIT in name.casefold().split("/"):
            path = prefixes.stripped(name, prefixes.USUAL) or name
            return f"{path}: git does not allow this name"
    first = file.text.partition(b"\n")[0].decode(errors="replace")  # GNU patch parses it, too
    if re.search(r"/\.git[/\s]", first, re.IGNORECASE):
        return f"{first}: git does not allow this name"
    return ""


def _old(file: FileDiff) -> str:
    return "" if file.old == NULL else prefixes.stripped(file.old, prefixes.USUAL)


def _new(file: FileDiff) -> str:
    return prefixes.touched(file, prefixes.USUAL)


def _makes(file: FileDiff) -> bool:
    return file.new != NULL and (file.old == NULL or file.renames)


def _takes_away(file: FileDiff) -> bool:
    return file.old != NULL and (file.new == NULL or (file.renames and not file.copies))


def _before(tree: Path, name: str) -> bool:
    return _status(tree, name) is not None


def _same(tree: Path, old: str, new: str) -> bool:
    """Whether two files have the same contents; False when `old` does not exist."""
    status = _status(tree, old)
    if status is None or not stat.S_ISREG(status.st_mode):
        return False
    return filecmp.cmp(tree / old, tree / new, shallow=False)


class _State:
    """The files of a tree while the diffs of a patch change it."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.changed: dict[str, int | None] = {}

    def size(self, name: str) -> int | None:
        """The size of a file in bytes; 1 for a changed file that is not empty; None: no file."""
        if name in self.changed:
            return self.changed[name]
        status = _status(self.tree, name)
        return None if status is None else status.st_size

    def change(self, file: FileDiff) -> None:
        """Records what a diff does to its file."""
        old, new = _old(file), _new(file)
        size = 1 if file.hunks else (self.size(old) if old else 0)
        if _takes_away(file):
            self.changed[old] = None
        if new and (size is not None or file.hunks):
            self.changed[new] = size


def _status(tree: Path, name: str) -> os.stat_result | None:
    """The lstat of a name in a tree; None if it does not exist.

    None as well for a path through a link and one that leads out: GNU patch refuses both.
    """
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts:
        return None
    path, status = tree, None
    with contextlib.suppress(OSError, ValueError):  # ValueError: a name with a NUL
        for at, part in enumerate(parts):
            path = path / part
            status = path.lstat()
            if at < len(parts) - 1 and not stat.S_ISDIR(status.st_mode):
                return None
        return status
    return None
