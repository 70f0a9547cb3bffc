# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel tree of the user's own, built where it is and never written to.

Its state is told by the names, sizes and times of its files, as make does it. The output tree
belongs to the place and not to the state, so a changed file is all that is compiled again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from kernel.catalog import Directory
from kernel.host.store import KEY_LENGTH
from kernel.sources.tree import Tree, checked

# Not compiled, and large or busy.
SKIPPED = frozenset({".git", "Documentation"})


def source_tree(entry: Directory) -> Tree:
    """The tree in a directory; raises UserError when there is none or it was built in place."""
    path = checked(Path(entry.path).expanduser().absolute(), entry.path)
    return Tree(path, f"directory {path} {fingerprint(path)}", place=str(path))


def fingerprint(path: Path) -> str:
    """A hash of the state of the files below `path`; less than a second for a kernel."""
    state = hashlib.sha256()
    for line in sorted(_states(str(path), len(str(path)))):
        state.update(line.encode(errors="surrogateescape"))
    return state.hexdigest()[:KEY_LENGTH]


def _states(folder: str, prefix: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in SKIPPED:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _states(entry.path, prefix)
            else:
                status = entry.stat(follow_symlinks=False)
                yield f"{entry.path[prefix:]} {status.st_size} {status.st_mtime_ns}\n"
