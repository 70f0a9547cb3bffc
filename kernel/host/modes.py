# SPDX-License-Identifier: GPL-2.0-or-later
"""Taking the setuid and setgid bits from files that others made.

As root a file of theirs in the cache would be a way to root for every local user who can reach it.
Nothing in the sandbox can set these bits (`seccomp`); this is for folders that came otherwise.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

SETID = stat.S_ISUID | stat.S_ISGID


def drop_setid(folder: Path) -> int:
    """Takes the bits from all below `folder`; returns how many had some. Follows no link."""
    count, folders = 0, [os.fspath(folder)]
    while folders:
        with suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    continue
                if mode & SETID:
                    Path(entry).chmod(stat.S_IMODE(mode) & ~SETID)
                    count += 1
                if stat.S_ISDIR(mode):
                    folders.append(entry.path)
    return count
