# SPDX-License-Identifier: GPL-2.0-or-later
"""What a patch says of the files of a tree, and whether it is so: GNU patch does not look.

It renames over a file that is there, puts lines without context anywhere, and says of a diff
without hunks that it comes off any tree. Git refuses the first two, and so do we. As with git all
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
    """Why a patch may not change a tree, one line per file; empty when nothing speaks against it.

    files: of one patch, with a/ and b/ before their names.
    """
    found = [one for file in files if (one := _of_git(file))]
    if found:
        return list(dict.fromkeys(found))
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
            found.append(f"{new}: the file is there already")
        elif file.renames and old and new and state.size(old) is None and not _before(tree, old):
            found.append(f"{old}: there is no such file")
        if file.old != NULL and (state.size(old) or state.size(new)):
            found += [
                f"{new or old}: hunk {number} (line {hunk.line}) {NO_CONTEXT}"
                for number, hunk in enumerate(file.hunks, 1)
                if not hunk.old
            ]
        state.change(file)
    return found


def shows(tree: Path, files: Sequence[FileDiff]) -> bool:
    """Whether all files of a tree are as a patch leaves them, as far as can be said without hunks.

    That a file is not there is no sign of a patch: at least one has to be there.
    """
    there = False
    for file in files:
        old, new = _old(file), _new(file)
        if _takes_away(file) and _before(tree, old):
            return False
        if not new:
            continue
        found = _status(tree, new)
        if found is None or not stat.S_ISREG(found.st_mode):
            return False
        if file.old == NULL and not file.hunks and found.st_size:
            return False
        if file.copies and not file.hunks and not _same(tree, old, new):
            return False
        if file.mode and bool(found.st_mode & stat.S_IXUSR) != file.mode.endswith("755"):
            return False
        if any(not hunk.new for hunk in file.hunks):  # it would come off at any line
            return False
        there = True
    return there


def _of_git(file: FileDiff) -> str:
    """An objection to a name that git has for itself, as in commits."""
    for name in (file.old, file.new):
        if name != NULL and _GIT in name.casefold().split("/"):
            return f"{prefixes.stripped(name, prefixes.USUAL) or name}: no git makes such a file"
    first = file.text.partition(b"\n")[0].decode(errors="replace")  # GNU patch reads it its own way
    if re.search(r"/\.git[/\s]", first, re.IGNORECASE):
        return f"{first}: no git makes such a file"
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


def _same(tree: Path, one: str, other: str) -> bool:
    """Whether two files, of which one may not be there, have the same contents."""
    found = _status(tree, one)
    if found is None or not stat.S_ISREG(found.st_mode):
        return False
    return filecmp.cmp(tree / one, tree / other, shallow=False)


class _State:
    """The files of a tree while the diffs of a patch change it."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.changed: dict[str, int | None] = {}

    def size(self, name: str) -> int | None:
        """Bytes of a file, 1 for what was changed and is not empty; None: it is not there."""
        if name in self.changed:
            return self.changed[name]
        found = _status(self.tree, name)
        return None if found is None else found.st_size

    def change(self, file: FileDiff) -> None:
        """Takes over what a diff does."""
        old, new = _old(file), _new(file)
        size = 1 if file.hunks else (self.size(old) if old else 0)
        if _takes_away(file):
            self.changed[old] = None
        if new and (size is not None or file.hunks):
            self.changed[new] = size


def _status(tree: Path, name: str) -> os.stat_result | None:
    """What stands at a name in a tree, itself and not what it links to; None: nothing.

    Nothing stands behind a link, nor at a name that leads out: GNU patch refuses both.
    """
    parts = name.split("/")
    if not name or name.startswith("/") or ".." in parts:
        return None
    path, found = tree, None
    with contextlib.suppress(OSError, ValueError):  # ValueError: a name with a zero byte
        for at, part in enumerate(parts):
            path = path / part
            found = path.lstat()
            if at < len(parts) - 1 and not stat.S_ISDIR(found.st_mode):
                return None
        return found
    return None
