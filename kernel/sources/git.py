# SPDX-License-Identifier: GPL-2.0-or-later
"""A commit of a git repository, as a tree in the cache.

A local repository is read with `git archive`: nothing is written to it and none of its objects
are copied. Of a remote one the commit alone is cloned. Either way the tree is named by the commit,
and no hook of the repository runs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from kernel import catalog
from kernel.catalog import Git
from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed, UserError
from kernel.host.process import run
from kernel.host.progress import step
from kernel.sources.tarball import unpack
from kernel.sources.tree import Tree, checked

REF_PREFIXES = ("", "refs/", "refs/tags/", "refs/heads/")  # in git's order (gitrevisions(7))


def source_tree(name: str, entry: Git, tools: ToolRoot) -> Tree:
    """The tree of a commit; raises UserError for a repository or a ref that does not exist."""
    log = store.directory("logs") / f"git-{store.digest(entry)}.log"
    commit = _commit(entry)

    def make(path: Path) -> None:
        repository = _place(entry) if _is_local(entry) else _cloned(entry, commit, log)
        tar = path / "tree.tar"
        argv = ["git", "-C", str(repository), "archive", "--format=tar", f"--output={tar}", commit]
        with step(f"unpacking {name}"):
            run(argv, log=log, doing=f"reading commit {commit[:12]}")
            unpack(tar, path / "tree", tools, log, strip=0)
        tar.unlink()
        checked(path / "tree", name)

    path = store.get("sources", _key(commit), f"the source of kernel {name}", make)
    return _tree(entry, commit, path)


def cached(entry: Git) -> Tree | None:
    """The tree if it is unpacked. Which commit a remote ref names is not known without asking."""
    if not _is_local(entry):
        return None
    commit = _commit(entry)
    path = store.peek("sources", _key(commit))
    return _tree(entry, commit, path) if path else None


def _key(commit: str) -> str:
    return store.digest("git", commit)


def _tree(entry: Git, commit: str, path: Path) -> Tree:
    origin = f"git {entry.repository} {entry.ref} {commit}"
    return Tree(path / "tree", origin, contents=f"git {commit}")


def _place(entry: Git) -> Path:
    """Where a local repository is."""
    return catalog.place(entry.repository)


def _is_local(entry: Git) -> bool:
    return _place(entry).is_dir()


def _commit(entry: Git) -> str:
    """What the ref names now."""
    return _local_commit(entry) if _is_local(entry) else _remote_commit(entry)


def _ask(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Failed("git is not installed", hint="apt-get install git") from None


def _local_commit(entry: Git) -> str:
    path = _place(entry)
    found = _ask(
        ["git", "-C", str(path), "rev-parse", "--verify", "--quiet", "--end-of-options"]
        + [f"{entry.ref}^{{commit}}"]
    )
    if found.returncode == 0:
        return found.stdout.strip()
    whole = _ask(["git", "-C", str(path), "rev-parse", "--git-dir"])
    if "dubious ownership" in whole.stderr:
        raise UserError(f"git reads no repository that belongs to somebody else: {path}")
    if whole.returncode:
        raise UserError(f"{path} is no git repository", hint=f"--kernel {path} takes it as it is")
    near = _ask(["git", "-C", str(path), "for-each-ref", "--format=%(refname:short)"]).stdout
    import difflib

    names = difflib.get_close_matches(entry.ref, near.splitlines(), n=3)
    raise UserError(
        f"{path} has no commit {entry.ref!r}",
        hint=f"did you mean {' or '.join(names)}?" if names else "git tag and git branch list them",
    )


def _remote_commit(entry: Git) -> str:
    told = _ask(["git", "ls-remote", "--", entry.repository, entry.ref, f"{entry.ref}^{{}}"])
    if told.returncode:
        raise Failed(f"cannot reach {entry.repository}: {told.stderr.strip()}")
    lines = (line.split("\t") for line in told.stdout.splitlines())
    # whose names end alike: git ls-remote takes the end of a name for the name
    commits = {ref: commit for commit, ref in lines}
    for prefix in REF_PREFIXES:
        ref = f"{prefix}{entry.ref}"
        if ref in commits:
            return commits.get(f"{ref}^{{}}", commits[ref])  # what an annotated tag is a tag of
    raise UserError(f"{entry.repository} has no branch or tag {entry.ref!r}")


def _cloned(entry: Git, commit: str, log: Path) -> Path:
    """A bare clone of one commit in the cache."""

    def make(path: Path) -> None:
        with step(f"cloning {entry.ref} of {entry.repository}"):
            run(["git", "init", "--bare", "--quiet", str(path)], log=log, doing="making a clone")
            fetch = ["git", "-C", str(path), "fetch", "--depth=1", "--no-tags", "--"]
            run([*fetch, entry.repository, commit], log=log, doing=f"fetching {entry.ref}")

    key = store.digest("clone", commit)
    return store.get("clones", key, f"{entry.ref} of {entry.repository}", make)
