# SPDX-License-Identifier: GPL-2.0-or-later
"""The files of a commit, byte for byte.

Whatever git would do to files on their way out (attributes, filters, line ends, encodings,
keywords, replacements) depends on the repository and on who reads it. So only objects are asked of
git, and we write the files. Each object is hashed on the way: what stands on the disk in the end is
what the commit's id names, or there is an error. No name of a tree leads out of its folder: folders
are made and entered one by one, through no link.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel.host import git
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.store import is_full
from blockyard.kernel.sources.objects import Answers, Reader, Repository

MOST_FILES = 1_000_000  # Linux has 90,000; a few objects can stand for billions of files
MOST_BYTES = 16 << 30  # Linux has 1.5 GB
DEEPEST = 100  # folders in folders; Linux has 10
# Older than any object that is compiled: make never takes a file that was written again for new.
WRITTEN_S = 946684800  # 2000-01-01
_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000


@dataclass(frozen=True)
class _Entry:
    """One line of a tree."""

    mode: int
    name: bytes
    id: str

    @property
    def is_folder(self) -> bool:
        return stat.S_IFMT(self.mode) == _FOLDER


@dataclass(frozen=True)
class _Step:
    """One step of writing a tree: a folder to enter, a file or a link to write, or a way back."""

    entry: _Entry | None  # None: back to the folder above


def write(repository: Repository, commit: str, target: Path) -> None:
    """Makes `target`, a new folder, hold the files of a commit.

    Raises Failure for objects that are missing or broken, and for a tree that no file system holds.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        reader = Reader(repository, git.make(Path(aside) / "git", commit))
        ((_, text),) = reader.read([commit], "commit")
        first = text.partition(b"\n")[0].split()
        if len(first) != 2 or first[0] != b"tree":
            raise Failure(f"{repository.name}: commit {commit} names no tree")
        root = first[1].decode(errors="replace")
        trees = _trees(reader, root)
        files = [
            step.entry.id for step in _steps(trees, root) if step.entry and not _is_made(step.entry)
        ]
        target.mkdir()
        try:
            with reader.started(files) as answers:
                _write(answers, _steps(trees, root), target)
        except OSError as error:
            if is_full(error):
                raise
            raise Failure(f"cannot write the files of commit {commit}: {error.strerror}") from None


def _is_made(entry: _Entry) -> bool:
    """Whether it is made without an object's contents: folders, and empty ones for submodules."""
    return stat.S_IFMT(entry.mode) in (_FOLDER, _SUBMODULE)


def _trees(reader: Reader, root: str) -> dict[str, list[_Entry]]:
    """All folders of a tree: id → what is in it."""
    trees: dict[str, list[_Entry]] = {}
    wanted = [root]
    while wanted:
        for name, data in reader.read(wanted, "tree"):
            trees[name] = _parsed(data, len(name) // 2, f"{reader.name}: tree {name}")
        found = (one.id for tree in wanted for one in trees[tree] if one.is_folder)
        wanted = [one for one in dict.fromkeys(found) if one not in trees]
    return trees


def _parsed(data: bytes, width: int, where: str) -> list[_Entry]:
    """The lines of a tree object. Raises Failure for names and modes that git does not make."""
    entries: list[_Entry] = []
    at = 0
    with contextlib.suppress(ValueError):
        while at < len(data):
            blank = data.index(b" ", at)
            end = data.index(b"\0", blank)
            mode = int(data[at:blank], 8)
            at = end + 1 + width
            entries.append(_Entry(mode, data[blank + 1 : end], data[end + 1 : at].hex()))
    if at != len(data):
        raise Failure(f"{where} is broken")
    names = {entry.name for entry in entries}
    if len(names) != len(entries):
        raise Failure(f"{where} has two entries of one name")
    for entry in entries:
        name = entry.name
        if name.lower() in (b"", b".", b"..", b".git") or b"/" in name:
            raise Failure(f"{where} has an entry named {name!r}: no git makes such a tree")
        if stat.S_IFMT(entry.mode) not in (_FOLDER, _LINK, _SUBMODULE, stat.S_IFREG):
            raise Failure(f"{where}: {name!r} has the mode {entry.mode:o}, which git does not know")
    return entries


def _steps(trees: Mapping[str, Sequence[_Entry]], root: str) -> Iterator[_Step]:
    """How a tree is written, folder by folder."""
    files = 0
    pending = [iter(trees[root])]
    while pending:
        entry = next(pending[-1], None)
        if entry is None:
            pending.pop()
            if pending:
                yield _Step(None)
            continue
        files += 1
        if files > MOST_FILES:
            raise Failure(f"the commit has more than {MOST_FILES} files: that is no Linux tree")
        yield _Step(entry)
        if entry.is_folder:
            pending.append(iter(trees[entry.id]))
            if len(pending) > DEEPEST:
                raise Failure(f"the commit has folders more than {DEEPEST} deep: no Linux tree has")


def _write(answers: Answers, steps: Iterator[_Step], target: Path) -> None:
    """Follows the steps; files come from git in the order of the steps."""
    left = MOST_BYTES
    folders = [os.open(target, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for step in steps:
            here, entry = folders[-1], step.entry
            if entry is None:
                os.close(folders.pop())
            elif _is_made(entry):
                os.mkdir(entry.name, 0o755, dir_fd=here)
                if entry.is_folder:
                    how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                    folders.append(os.open(entry.name, how, dir_fd=here))
            else:
                left -= answers.size(entry.id, "blob")
                if left < 0:
                    raise Failure(f"the commit has more than {MOST_BYTES >> 30} GiB of files")
                _write_file(answers, entry, here)
    finally:
        for folder in folders:
            os.close(folder)


def _write_file(answers: Answers, entry: _Entry, folder: int) -> None:
    if stat.S_IFMT(entry.mode) == _LINK:
        where = answers.contents(4096)
        if not where or b"\0" in where:
            raise Failure(f"the commit has a link {entry.name!r} to no path")
        os.symlink(where, entry.name, dir_fd=folder)
        os.utime(entry.name, (WRITTEN_S, WRITTEN_S), dir_fd=folder, follow_symlinks=False)
        return
    mode = 0o755 if entry.mode & stat.S_IXUSR else 0o644
    file = os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    try:
        for data in answers.chunks():
            while data:
                data = data[os.write(file, data) :]
        os.fchmod(file, mode)  # whatever the umask is
        os.utime(file, (WRITTEN_S, WRITTEN_S))
    finally:
        os.close(file)
