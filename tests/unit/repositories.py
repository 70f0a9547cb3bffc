# SPDX-License-Identifier: GPL-2.0-or-later
"""git repositories with a tiny kernel tree, made by the real git, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

MAKEFILE = b"VERSION = 7\nPATCHLEVEL = 4\n"
KCONFIG = b'mainmenu "Linux"\n'
_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "x"), ("EMAIL", "x@example.org"), ("DATE", "@1700000000 +0000"))
}


def git(path: Path, *arguments: str, stdin: bytes = b"") -> str:
    """What a git command says; no variable of the test's environment reaches it."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(path), *arguments],
        capture_output=True,
        check=True,
        input=stdin,
        env={**outside, **_IDENTITY, "GIT_CONFIG_NOSYSTEM": "1"},
    )
    return done.stdout.decode().strip()


def make(path: Path, files: Mapping[str, bytes] | None = None, *options: str) -> Path:
    """A repository with one commit of a tree, tagged v1, on the branch main."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main", *options)
    commit(path, {"Makefile": MAKEFILE, "Kconfig": KCONFIG, **(files or {})})
    git(path, "tag", "v1")
    return path


def commit(path: Path, files: Mapping[str, bytes]) -> str:
    """Writes files and commits them as they are; the commit's id."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    git(path, "-c", "core.autocrlf=false", "add", "--all", "--force")
    git(path, "commit", "--quiet", "--allow-empty", "--message=one")
    return git(path, "rev-parse", "HEAD")


def crafted(path: Path, *entries: tuple[str, bytes, bytes]) -> str:
    """A commit with a hand-made tree, which git itself would not make: its id.

    entries: mode, name and contents (of a blob), or for folders the id of a tree.
    """
    data = b""
    for mode, name, contents in entries:
        one = contents.decode() if mode == "40000" else blob(path, contents)
        data += mode.encode() + b" " + name + b"\0" + bytes.fromhex(one)
    command = ["hash-object", "-w", "--literally", "--stdin", "-t"]
    tree = git(path, *command, "tree", stdin=data)
    text = f"tree {tree}\nauthor x <x@x> 0 +0000\ncommitter x <x@x> 0 +0000\n\nx\n"
    return git(path, *command, "commit", stdin=text.encode())


def blob(path: Path, contents: bytes) -> str:
    """A blob's id."""
    return git(path, "hash-object", "-w", "--stdin", stdin=contents)
