# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel tree of the user's own, built where it is and never written to.

Its state is known from the names, sizes and times of its files, as for make. The output tree
belongs to the place and not to the state, so a changed file is all that is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from blockyard.kernel import catalog
from blockyard.kernel.catalog import Directory
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.store import KEY_LENGTH
from blockyard.kernel.sources.origin import UserDirectory
from blockyard.kernel.sources.tree import Tree, checked

SKIPPED = ".git"  # not compiled, and busy
# Not compiled either, and large; what Kconfig reads of it counts.
MANUAL = "/Documentation/"


def source_tree(entry: Directory) -> Tree:
    """The tree in a directory; raises UsageError when there is none or it was built in place."""
    path = checked(catalog.expand_path(entry.path), entry.path)
    state = fingerprint(path)
    return Tree(path, UserDirectory(str(path), state), build_id=str(path), state=state)


def changed(tree: Tree) -> bool:
    """Whether it is a directory whose state is not the one it had when it was looked at."""
    return bool(tree.state) and tree.state != fingerprint(tree.path)


def fingerprint(path: Path) -> str:
    """A hash of the state of the files below `path`; less than a second for a kernel."""
    state = hashlib.sha256()
    try:
        for line in sorted(_states(str(path), len(str(path)))):
            state.update(line.encode(errors="surrogateescape"))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    return state.hexdigest()[:KEY_LENGTH]


def _states(top: str, prefix: int) -> Iterator[str]:
    folders = [top]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == SKIPPED:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif state := _state(entry, entry.path[prefix:]):
                    yield state


def _state(entry: os.DirEntry[str], name: str) -> str:
    """A line on a file that counts; empty for any other."""
    if name.startswith(MANUAL) and not entry.name.startswith("Kconfig"):
        return ""
    with contextlib.suppress(FileNotFoundError):  # an editor's, gone again
        status = entry.stat(follow_symlinks=False)
        # sockets and pipes of what runs there (an editor, a debugger) are no part of the tree
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            runs = status.st_mode & stat.S_IXUSR
            return f"{name} {status.st_size} {status.st_mtime_ns} {runs}\n"
    return ""
