# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects of a git repository, each checked against its id as it comes.

They are asked of `git cat-file --batch`, which converts nothing. It works in an empty repository of
ours that borrows the objects, so the settings of the repository that they are of do not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blockyard.kernel.host import git
from blockyard.kernel.host.errors import Failure

MOST_WHOLE = 64 << 20  # bytes of a folder's list, or of a commit
CHUNK = 1 << 20
FSCK = "git fsck says more about the repository"


@dataclass(frozen=True)
class Repository:
    """Where objects are read."""

    objects: Path  # git's folder of objects
    name: str  # for people


class Answers:
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
            raise Failure(f"{self._name}: {wanted} is not a {kind}: git says {' '.join(words)!r}")
        self._hash = hashlib.sha256() if len(wanted) == 64 else hashlib.sha1(usedforsecurity=False)
        self._hash.update(f"{kind} {words[2]}\0".encode())
        self._id, self._left = wanted, int(words[2])
        return self._left

    def chunks(self) -> Iterator[bytes]:
        """The object's contents. Raises Failure at its end when it is not what its id says."""
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
            raise Failure(
                f"{self._name}: object {self._id} has other contents than its name says",
                hint=FSCK,
            )

    def contents(self, limit: int) -> bytes:
        """The same as a whole; raises Failure beyond `limit` bytes."""
        if self._left > limit:
            raise Failure(f"{self._name}: object {self._id} has {self._left} bytes")
        return b"".join(self.chunks())

    def _broken(self, what: str) -> Failure:
        self._errors.seek(0)
        said = self._errors.read(4000).decode(errors="replace").strip()
        why = self.ending or (said.splitlines()[-1] if said else "it ended early")
        return Failure(f"{self._name}: git cannot read {what}: {why}", hint=FSCK)


class Missing(Failure):
    """An object is not in the repository."""


class Reader:
    """Reads objects of a repository by an empty one of ours, so that its settings do not count."""

    def __init__(self, repository: Repository, ours: Path) -> None:
        self.name = repository.name
        self._env = git.reading(ours, repository.objects)

    def read(self, ids: Sequence[str], kind: str) -> Iterator[tuple[str, bytes]]:
        """Some objects of one kind, each as a whole."""
        with self.started(ids) as answers:
            for one in ids:
                answers.size(one, kind)
                yield one, answers.contents(MOST_WHOLE)

    @contextlib.contextmanager
    def started(self, ids: Sequence[str]) -> Iterator[Answers]:
        """What git says of some objects, in their order."""
        with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as errors:
            questions.write("".join(f"{one}\n" for one in ids).encode())
            questions.seek(0)
            command = ["cat-file", "--batch", "--buffer"]
            with git.started(command, self._env, questions, errors) as process:
                assert process.stdout
                answers = Answers(process.stdout, errors, self.name)
                with _watched(process.pid, answers):
                    yield answers


@contextlib.contextmanager
def _watched(pid: int, answers: Answers) -> Iterator[None]:
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
