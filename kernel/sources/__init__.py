# SPDX-License-Identifier: GPL-2.0-or-later
"""Source trees from every kind of catalog entry: package, tarball, git commit, directory.

A `Tree` from a package, a tarball or a commit is in the cache under the hash of its contents and
never changes. A directory belongs to the user: it is never written to, and its state is computed
each time.
"""

from __future__ import annotations

from blockyard.kernel.catalog import DebianImage, DebianSource, Directory, Entry, Git, Tarball
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources import debian, directory, git, tarball
from blockyard.kernel.sources.tree import Tree


def cached(name: str, entry: Entry) -> Tree | None:
    """Like `files`, without fetching or unpacking anything; None when the cache does not have it.

    Raises UsageError as `fetch` does.
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
    """The source tree of `entry`, or the package files of a kernel that Debian built."""
    if isinstance(entry, DebianImage):
        return debian.image_files(name, entry, tools)
    return fetch(name, entry, tools)


def fetch(name: str, entry: Entry, tools: ToolRoot) -> Tree:
    """The source tree of `entry`, fetched and unpacked if needed; name: as the user typed it.

    Raises UsageError for an invalid entry, Failure when fetching or unpacking fails.
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
