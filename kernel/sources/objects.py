# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads objects of a git repository, and checks each against its id.

`git cat-file --batch` delivers them without any conversion. It runs in an empty repository of ours
that borrows the objects, so the configuration of the repository with the objects is not read.
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

MOST_WHOLE = 64 << 20  # bytes of a tree or commit object
CHUNK = 1 << 20
FSCK = "check the repository with git fsck"


@dataclass(frozen=True)
class Repository:
    """A repository to read objects from."""

    objects: Path  # its folder `objects`
    name: str  # its path or URL, for messages


class Answers:
    """The output of `git cat-file --batch`, object by object."""

    def __init__(self, stream: IO[bytes], errors: IO[bytes], name: str) -> None:
        self._stream, self._errors, self._name = stream, errors, name
        self.seen = 0  # bytes and objects read; grows as long as git makes progress
        self.ending = ""  # why git was killed
        self._id, self._left, self._hash = "", 0, hashlib.sha1(usedforsecurity=False)

    def size(self, expected: str, kind: str) -> int:
        """Starts the next object and returns its size in bytes; its contents must be read next.

        Raises Missing, and Failure when git fails or delivers another object.
        """
        words = self._stream.readline(200).decode(errors="replace").split()
        self.seen += 1
        if words == [expected, "missing"]:
            raise Missing(f"{self._name}: the {kind} {expected} is missing")
        if not words:
            raise self._broken(f"{kind} {expected}")
        if len(words) != 3 or words[:2] != [expected, kind]:
            raise Failure(f"{self._name}: {expected} is not a {kind}: git says {' '.join(words)!r}")
        sha256 = len(expected) == 64
        self._hash = hashlib.sha256() if sha256 else hashlib.sha1(usedforsecurity=False)
        self._hash.update(f"{kind} {words[2]}\0".encode())
        self._id, self._left = expected, int(words[2])
        return self._left

    def chunks(self) -> Iterator[bytes]:
        """The object's contents. Raises Failure at the end when they do not match its id."""
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
                f"{self._name}: object {self._id} is damaged: its contents do not match its id",
                hint=FSCK,
            )

    def contents(self, limit: int) -> bytes:
        """The whole contents of the object; raises Failure for more than `limit` bytes."""
        if self._left > limit:
            raise Failure(
                f"{self._name}: object {self._id} is too large: {self._left} bytes, "
                f"the limit is {limit}"
            )
        return b"".join(self.chunks())

    def _broken(self, what: str) -> Failure:
        self._errors.seek(0)
        output = self._errors.read(4000).decode(errors="replace").strip()
        why = self.ending or (output.splitlines()[-1] if output else "unexpected end of output")
        return Failure(f"{self._name}: git cannot read {what}: {why}", hint=FSCK)


class Missing(Failure):
    """An object is not in the repository."""


class Reader:
    """Reads objects of a repository through `ours`, an empty repository."""

    def __init__(self, repository: Repository, ours: Path) -> None:
        self.name = repository.name
        self._env = git.reading(ours, repository.objects)

    def read(self, ids: Sequence[str], kind: str) -> Iterator[tuple[str, bytes]]:
        """Id and contents of some objects of one kind. Raises Failure, Missing."""
        with self.started(ids) as answers:
            for name in ids:
                answers.size(name, kind)
                yield name, answers.contents(MOST_WHOLE)

    @contextlib.contextmanager
    def started(self, ids: Sequence[str]) -> Iterator[Answers]:
        """Starts git for some objects; the answers come in their order."""
        with tempfile.TemporaryFile() as requests, tempfile.TemporaryFile() as errors:
            requests.write("".join(f"{name}\n" for name in ids).encode())
            requests.seek(0)
            command = ["cat-file", "--batch", "--buffer"]
            with git.started(command, self._env, requests, errors) as process:
                assert process.stdout
                answers = Answers(process.stdout, errors, self.name)
                with _watched(process.pid, answers):
                    yield answers


@contextlib.contextmanager
def _watched(pid: int, answers: Answers) -> Iterator[None]:
    """Kills git when it makes no progress: a pipe among its packs, a lost disk."""
    done = threading.Event()

    def watch() -> None:
        seen = -1
        while seen != answers.seen:
            seen = answers.seen
            if done.wait(git.LOCAL_S):
                return
        answers.ending = f"no answer for {git.LOCAL_S:g} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
