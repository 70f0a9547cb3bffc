# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the files of a commit, byte for byte.

git's checkout converts files (attributes, filters, line ends, encodings, keywords, replacements),
depending on the repository and the user's settings. So git only delivers objects, and this module
writes the files. Each object is checked against its id, so the files are those that the commit's
id names, or there is an error. No name in a tree can lead out of the target folder: folders are
made and entered one by one, and links are not followed.
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

MOST_FILES = 1_000_000  # Linux has 90,000; a few tree objects can describe billions of files
MOST_BYTES = 16 << 30  # Linux has 1.5 GB
DEEPEST = 100  # nested folders; Linux has 10
# Older than any compiled object, so that make does not rebuild when files are written again.
WRITTEN_S = 946684800  # 2000-01-01
_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000


@dataclass(frozen=True)
class _Entry:
    """An entry of a tree object."""

    mode: int
    name: bytes
    id: str

    @property
    def is_folder(self) -> bool:
        return stat.S_IFMT(self.mode) == _FOLDER


@dataclass(frozen=True)
class _Step:
    """A step of writing a tree: enter a folder, write a file or a link, or go back up."""

    entry: _Entry | None  # None: go back to the folder above


def write(repository: Repository, commit: str, target: Path) -> None:
    """Makes the folder `target` and writes the files of a commit to it.

    Raises Failure for missing and broken objects, and for a tree that cannot be written as files.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        reader = Reader(repository, git.make(Path(aside) / "git", commit))
        ((_, text),) = reader.read([commit], "commit")
        first = text.partition(b"\n")[0].split()
        if len(first) != 2 or first[0] != b"tree":
            raise Failure(f"{repository.name}: invalid commit {commit}: it names no tree")
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
    """Whether an entry needs no blob: a folder, or a submodule (an empty folder)."""
    return stat.S_IFMT(entry.mode) in (_FOLDER, _SUBMODULE)


def _trees(reader: Reader, root: str) -> dict[str, list[_Entry]]:
    """All tree objects below a tree: id → entries."""
    trees: dict[str, list[_Entry]] = {}
    pending = [root]
    while pending:
        for name, data in reader.read(pending, "tree"):
            trees[name] = _parsed(data, len(name) // 2, f"{reader.name}: tree {name}")
        inner = (entry.id for tree in pending for entry in trees[tree] if entry.is_folder)
        pending = [tree for tree in dict.fromkeys(inner) if tree not in trees]
    return trees


def _parsed(data: bytes, width: int, where: str) -> list[_Entry]:
    """The entries of a tree object. Raises Failure for names and modes that git never writes."""
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
        raise Failure(f"{where} has two entries with the same name")
    for entry in entries:
        name = entry.name
        if name.lower() in (b"", b".", b"..", b".git") or b"/" in name:
            raise Failure(f"{where} has an entry with the invalid name {name!r}")
        if stat.S_IFMT(entry.mode) not in (_FOLDER, _LINK, _SUBMODULE, stat.S_IFREG):
            raise Failure(f"{where}: {name!r} has the invalid mode {entry.mode:o}")
    return entries


def _steps(trees: Mapping[str, Sequence[_Entry]], root: str) -> Iterator[_Step]:
    """The steps that write a tree, folder by folder. Raises Failure beyond the limits."""
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
            raise Failure(f"the commit has more than {MOST_FILES} files: is it a Linux tree?")
        yield _Step(entry)
        if entry.is_folder:
            pending.append(iter(trees[entry.id]))
            if len(pending) > DEEPEST:
                raise Failure(
                    f"the commit nests folders more than {DEEPEST} deep: is it a Linux tree?"
                )


def _write(answers: Answers, steps: Iterator[_Step], target: Path) -> None:
    """Executes the steps; git delivers the blobs in their order."""
    left = MOST_BYTES
    folders = [os.open(target, os.O_RDONLY | os.O_DIRECTORY)]
    try:
        for step in steps:
            folder, entry = folders[-1], step.entry
            if entry is None:
                os.close(folders.pop())
            elif _is_made(entry):
                os.mkdir(entry.name, 0o755, dir_fd=folder)
                if entry.is_folder:
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                    folders.append(os.open(entry.name, flags, dir_fd=folder))
            else:
                left -= answers.size(entry.id, "blob")
                if left < 0:
                    raise Failure(f"the commit has more than {MOST_BYTES >> 30} GiB of files")
                _write_file(answers, entry, folder)
    finally:
        for folder in folders:
            os.close(folder)


def _write_file(answers: Answers, entry: _Entry, folder: int) -> None:
    if stat.S_IFMT(entry.mode) == _LINK:
        link_target = answers.contents(4096)
        if not link_target or b"\0" in link_target:
            raise Failure(f"the commit has a link {entry.name!r} with an invalid target")
        os.symlink(link_target, entry.name, dir_fd=folder)
        os.utime(entry.name, (WRITTEN_S, WRITTEN_S), dir_fd=folder, follow_symlinks=False)
        return
    mode = 0o755 if entry.mode & stat.S_IXUSR else 0o644
    file = os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode, dir_fd=folder)
    try:
        for data in answers.chunks():
            while data:
                data = data[os.write(file, data) :]
        os.fchmod(file, mode)  # not affected by the umask
        os.utime(file, (WRITTEN_S, WRITTEN_S))
    finally:
        os.close(file)
