# SPDX-License-Identifier: GPL-2.0-or-later
"""git repositories with a tiny kernel tree, made by the real git."""

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
    """Output of a git command, which does not see git variables of the environment."""
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
    """A repository with one commit, tagged v1, on the branch main."""
    path.mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main", *options)
    commit(path, {"Makefile": MAKEFILE, "Kconfig": KCONFIG, **(files or {})})
    git(path, "tag", "v1")
    return path


def commit(path: Path, files: Mapping[str, bytes]) -> str:
    """Writes files, commits them unchanged and returns the commit's id."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    git(path, "-c", "core.autocrlf=false", "add", "--all", "--force")
    git(path, "commit", "--quiet", "--allow-empty", "--message=one")
    return git(path, "rev-parse", "HEAD")


def crafted(path: Path, *entries: tuple[str, bytes, bytes]) -> str:
    """Id of a commit with a tree that git itself would not make.

    entries: mode, name, and the contents of a blob or the id of a folder's tree.
    """
    data = b""
    for mode, name, contents in entries:
        object_id = contents.decode() if mode == "40000" else blob(path, contents)
        data += mode.encode() + b" " + name + b"\0" + bytes.fromhex(object_id)
    command = ["hash-object", "-w", "--literally", "--stdin", "-t"]
    tree = git(path, *command, "tree", stdin=data)
    text = f"tree {tree}\nauthor x <x@x> 0 +0000\ncommitter x <x@x> 0 +0000\n\nx\n"
    return git(path, *command, "commit", stdin=text.encode())


def blob(path: Path, contents: bytes) -> str:
    """Writes a blob and returns its id."""
    return git(path, "hash-object", "-w", "--stdin", stdin=contents)
