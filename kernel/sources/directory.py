# SPDX-License-Identifier: GPL-2.0-or-later
"""The user's own kernel tree: built out of tree, and never written to.

Its state is a hash of the names, sizes and times of its files, which is what make looks at too. The
output tree is selected by the path and not by the state, so only changed files are compiled again.
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

SKIPPED = ".git"  # not compiled, and changes often
# Large and not compiled, except for its Kconfig files.
MANUAL = "/Documentation/"


def source_tree(entry: Directory) -> Tree:
    """The tree in a directory; raises UsageError if it is not a kernel tree or built in place."""
    path = checked(catalog.expand_path(entry.path), entry.path)
    state = fingerprint(path)
    return Tree(path, UserDirectory(str(path), state), build_id=str(path), state=state)


def changed(tree: Tree) -> bool:
    """Whether a user's directory was changed since its `Tree` was made; False for other trees."""
    return bool(tree.state) and tree.state != fingerprint(tree.path)


def fingerprint(path: Path) -> str:
    """A hash of the state of the files below `path`; takes under a second for a kernel.

    Raises UsageError for a folder that cannot be read.
    """
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
    """A line with the state of a file; empty for a file that is not part of the tree."""
    if name.startswith(MANUAL) and not entry.name.startswith("Kconfig"):
        return ""
    with contextlib.suppress(FileNotFoundError):  # an editor's temporary file, already removed
        status = entry.stat(follow_symlinks=False)
        # sockets and pipes belong to running programs (an editor, a debugger), not to the tree
        if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
            executable = status.st_mode & stat.S_IXUSR
            return f"{name} {status.st_size} {status.st_mtime_ns} {executable}\n"
    return ""
