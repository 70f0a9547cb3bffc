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
import hashlib
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kernel.host import git
from kernel.host.errors import Failed
from kernel.host.store import is_full

MOST_FILES = 1_000_000  # Linux has 90,000; a few objects can stand for billions of files
MOST_BYTES = 16 << 30  # Linux has 1.5 GB
DEEPEST = 100  # folders in folders; Linux has 10
TREE_BYTES = 64 << 20  # of one folder's list, or of a commit
CHUNK = 1 << 20
FSCK = "git fsck says more about the repository"
# Older than any object that is compiled: make never takes a file that was written again for new.
WRITTEN_S = 946684800  # 2000-01-01
_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000


@dataclass(frozen=True)
class Repository:
    """Where objects are read."""

    objects: Path  # git's folder of objects
    name: str  # for people


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

    Raises Failed for objects that are missing or broken, and for a tree that no file system holds.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as aside:
        reader = _Reader(repository, git.make(Path(aside) / "git", commit))
        ((_, text),) = reader.read([commit], "commit")
        first = text.partition(b"\n")[0].split()
        if len(first) != 2 or first[0] != b"tree":
            raise Failed(f"{repository.name}: commit {commit} names no tree")
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
            raise Failed(f"cannot write the files of commit {commit}: {error.strerror}") from None


def _is_made(entry: _Entry) -> bool:
    """Whether it is made without an object's contents: folders, and empty ones for submodules."""
    return stat.S_IFMT(entry.mode) in (_FOLDER, _SUBMODULE)


def _trees(reader: _Reader, root: str) -> dict[str, list[_Entry]]:
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
    """The lines of a tree object. Raises Failed for names and modes that git does not make."""
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
        raise Failed(f"{where} is broken")
    names = {entry.name for entry in entries}
    if len(names) != len(entries):
        raise Failed(f"{where} has two entries of one name")
    for entry in entries:
        name = entry.name
        if name.lower() in (b"", b".", b"..", b".git") or b"/" in name:
            raise Failed(f"{where} has an entry named {name!r}: no git makes such a tree")
        if stat.S_IFMT(entry.mode) not in (_FOLDER, _LINK, _SUBMODULE, stat.S_IFREG):
            raise Failed(f"{where}: {name!r} has the mode {entry.mode:o}, which git does not know")
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
            raise Failed(f"the commit has more than {MOST_FILES} files: that is no Linux tree")
        yield _Step(entry)
        if entry.is_folder:
            pending.append(iter(trees[entry.id]))
            if len(pending) > DEEPEST:
                raise Failed(f"the commit has folders more than {DEEPEST} deep: no Linux tree has")


def _write(answers: _Answers, steps: Iterator[_Step], target: Path) -> None:
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
                    raise Failed(f"the commit has more than {MOST_BYTES >> 30} GiB of files")
                _write_file(answers, entry, here)
    finally:
        for folder in folders:
            os.close(folder)


def _write_file(answers: _Answers, entry: _Entry, folder: int) -> None:
    if stat.S_IFMT(entry.mode) == _LINK:
        where = answers.contents(4096)
        if not where or b"\0" in where:
            raise Failed(f"the commit has a link {entry.name!r} to no path")
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


class _Answers:
    """What `git cat-file --batch` says, object by object, each checked against its id."""

    def __init__(self, stream: IO[bytes], errors: IO[bytes], name: str) -> None:
        self._stream, self._errors, self._name = stream, errors, name
        self.seen = 0  # bytes and objects; stands still when git does
        self.ending = ""  # why git was ended
        self._id, self._left, self._hash = "", 0, hashlib.sha1(usedforsecurity=False)

    def size(self, wanted: str, kind: str) -> int:
        """Begins with the next object; returns its bytes. Its contents have to be read then."""
        words = self._stream.readline(200).decode(errors="replace").split()
        self.seen += 1
        if words == [wanted, "missing"]:
            raise Missing(f"{self._name}: the {kind} {wanted} is missing")
        if not words:
            raise self._broken(f"{kind} {wanted}")
        if len(words) != 3 or words[:2] != [wanted, kind]:
            raise Failed(f"{self._name}: {wanted} is not a {kind}: git says {' '.join(words)!r}")
        self._hash = hashlib.sha256() if len(wanted) == 64 else hashlib.sha1(usedforsecurity=False)
        self._hash.update(f"{kind} {words[2]}\0".encode())
        self._id, self._left = wanted, int(words[2])
        return self._left

    def chunks(self) -> Iterator[bytes]:
        """The object's contents. Raises Failed at its end when it is not what its id says."""
        while self._left:
            data = self._stream.read(min(self._left, CHUNK))
            if not data:
                raise self._broken(self._id)
            self.seen += len(data)
            self._left -= len(data)
            self._hash.update(data)
            yield data
        self._stream.read(1)
        if self._hash.hexdigest() != self._id:
            raise Failed(
                f"{self._name}: object {self._id} has other contents than its name says",
                hint=FSCK,
            )

    def contents(self, limit: int) -> bytes:
        """The same as a whole; raises Failed beyond `limit` bytes."""
        if self._left > limit:
            raise Failed(f"{self._name}: object {self._id} has {self._left} bytes")
        return b"".join(self.chunks())

    def _broken(self, what: str) -> Failed:
        self._errors.seek(0)
        said = self._errors.read(4000).decode(errors="replace").strip()
        why = self.ending or (said.splitlines()[-1] if said else "it ended early")
        return Failed(f"{self._name}: git cannot read {what}: {why}", hint=FSCK)


class Missing(Failed):
    """An object is not in the repository."""


class _Reader:
    """Reads objects of a repository by an empty one of ours, so that its settings do not count."""

    def __init__(self, repository: Repository, ours: Path) -> None:
        self.name = repository.name
        self._env = git.reading(ours, repository.objects)

    def read(self, ids: Sequence[str], kind: str) -> Iterator[tuple[str, bytes]]:
        """Some objects of one kind, each as a whole."""
        with self.started(ids) as answers:
            for one in ids:
                answers.size(one, kind)
                yield one, answers.contents(TREE_BYTES)

    @contextlib.contextmanager
    def started(self, ids: Sequence[str]) -> Iterator[_Answers]:
        """What git says of some objects, in their order."""
        with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as errors:
            questions.write("".join(f"{one}\n" for one in ids).encode())
            questions.seek(0)
            command = ["cat-file", "--batch", "--buffer"]
            with git.started(command, self._env, questions, errors) as process:
                assert process.stdout
                answers = _Answers(process.stdout, errors, self.name)
                with _watched(process.pid, answers):
                    yield answers


@contextlib.contextmanager
def _watched(pid: int, answers: _Answers) -> Iterator[None]:
    """Kills a git that says nothing for long: a pipe among its packs, a disk that is gone."""
    done = threading.Event()

    def watch() -> None:
        seen = -1
        while seen != answers.seen:
            seen = answers.seen
            if done.wait(git.LOCAL_S):
                return
        answers.ending = f"it gave no answer for {git.LOCAL_S:g} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
