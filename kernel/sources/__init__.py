# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a user named to a source tree on disk, whatever the form.

A `Tree` of a package, a tarball or a commit stands in the cache under the hash of what it is and
never changes. A directory is the user's own: it is never written to, and its state is taken anew
each time.
"""

from __future__ import annotations

from blockyard.kernel.catalog import DebianImage, DebianSource, Directory, Entry, Git, Tarball
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources import debian, directory, git, tarball
from blockyard.kernel.sources.tree import Tree


def cached(name: str, entry: Entry) -> Tree | None:
    """The same if it can be had without fetching or unpacking anything; else None.

    For a kernel that Debian built: its packages' files. Raises UsageError as `fetch` does.
    """
    match entry:
        case DebianSource() | DebianImage():
            return debian.cached(name, entry)
        case Git():
            return git.cached(entry)
        case Tarball():
            return tarball.cached(entry)
        case Directory():
            return directory.source_tree(entry)


def files(name: str, entry: Entry, tools: ToolRoot) -> Tree:
    """What `entry` stands for: a source tree, or the packages' files of a kernel Debian built."""
    if isinstance(entry, DebianImage):
        return debian.image_files(name, entry, tools)
    return fetch(name, entry, tools)


def fetch(name: str, entry: Entry, tools: ToolRoot) -> Tree:
    """The source tree that `entry` stands for; `name` is what the user called it.

    Raises UsageError for a tree that cannot be, Failure for one that cannot be had.
    """
    match entry:
        case DebianSource():
            return debian.source_tree(name, entry, tools)
        case Git():
            return git.source_tree(name, entry)
        case Tarball():
            return tarball.source_tree(name, entry, tools)
        case Directory():
            return directory.source_tree(entry)
        case _:
            raise UsageError(
                f"kernel {name} is Debian's own build: there is nothing to build",
                hint=f"./inv boot --kernel {name} boots it",
            )
