# SPDX-License-Identifier: GPL-2.0-or-later
"""A commit of a git repository, as a tree in the cache.

From a local repository (a folder, or a file:// URL) only objects are read: nothing is written to
it, and no program that its configuration names is run. From a remote one a single commit is cloned.
In both cases the commit's id is the key of the tree, and its files are checked against it.
"""

from __future__ import annotations

import difflib
import os
import re
import urllib.parse
from pathlib import Path

from blockyard.kernel import catalog
from blockyard.kernel.catalog import Git
from blockyard.kernel.host import git, redact, store, untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import step
from blockyard.kernel.sources import commit as commits
from blockyard.kernel.sources import remote
from blockyard.kernel.sources.objects import FSCK, Missing, Repository
from blockyard.kernel.sources.origin import GitCommit
from blockyard.kernel.sources.tree import Tree, checked

RECIPE = 2  # part of the key: raise it when the same commit gives a different tree


def source_tree(name: str, entry: Git) -> Tree:
    """The tree of a commit, fetched and unpacked if needed.

    Raises UsageError for a repository or a ref that does not exist, Failure when git fails.
    """
    shown = redact.text(name)
    commit = _commit(entry)

    def make(path: Path) -> None:
        repository = _repository(entry, commit)
        with step(f"unpacking {shown}"):
            try:
                commits.write(repository, commit, path / "tree")
            except Missing as error:
                raise _incomplete(error, repository) from None
        checked(path / "tree", shown)

    path = store.get("sources", _key(commit), f"the source of kernel {shown}", make)
    return _tree(entry, commit, path)


def cached(entry: Git) -> Tree | None:
    """The tree from the cache; None when it is not there or its ref must be resolved remotely."""
    commit = _commit(entry) if _folder(entry) or remote.COMMIT.fullmatch(entry.ref) else None
    path = store.peek("sources", _key(commit)) if commit else None
    return _tree(entry, commit, path) if commit and path else None


def _key(commit: str) -> str:
    return store.digest("git", RECIPE, commit)


def _tree(entry: Git, commit: str, path: Path) -> Tree:
    origin = GitCommit(redact.text(entry.repository), entry.ref, commit)
    return Tree(path / "tree", origin, contents=f"git {commit} by recipe {RECIPE}")


def _folder(entry: Git) -> Path | None:
    """The path of a local repository; None for a remote one.

    Raises UsageError for a folder that does not exist.
    """
    text = entry.repository
    if "\0" in entry.ref:
        raise UsageError(f"invalid ref {entry.ref!r}: it contains a NUL character")
    if text.startswith("file://"):
        text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    elif "://" in text:
        return None
    path = catalog.expand_path(text)
    if catalog.is_folder(path):
        return path
    if remote.is_url(text):
        return None
    raise UsageError(f"no such folder: {path}", hint="for a bundle, run git clone first")


def _commit(entry: Git) -> str:
    """The id of the commit that the ref names now."""
    path = _folder(entry)
    return _local_commit(path, entry.ref) if path else remote.commit(entry.repository, entry.ref)


def _repository(entry: Git, commit: str) -> Repository:
    """The repository with the objects of a commit; clones the commit from a remote one."""
    path = _folder(entry)
    if path is not None:
        answer = _ask(path, "rev-parse", "--git-path", "objects")
        objects = path / os.fsdecode(answer.output.removesuffix(b"\n"))
        return Repository(objects, str(path))
    shown = redact.text(entry.repository)
    log = store.directory("logs") / f"git-{store.digest(shown, entry.ref)}.log"
    bare = remote.clone(entry.repository, entry.ref, commit, log)
    return Repository(bare / "objects", shown)


def _ask(path: Path, *arguments: str) -> git.Answer:
    doing = f"reading {path} with git"
    with step(doing):
        return git.ask(
            ["-C", str(path), *arguments],
            git.local(),
            doing=doing,
            silence_s=git.LOCAL_S,
            limit_s=git.LOCAL_S,
        )


def _local_commit(path: Path, ref: str) -> str:
    options = ["--verify", "--quiet", "--end-of-options"]
    answer = _ask(path, "rev-parse", *options, f"{ref}^{{commit}}")
    commit = answer.output.decode(errors="replace").strip()
    if answer.code == 0 and remote.COMMIT.fullmatch(commit):
        return commit
    repository = _ask(path, "rev-parse", "--git-dir")
    if repository.code:
        raise _unreadable(path, repository.errors.strip())
    names = _ask(path, "for-each-ref", "--format=%(refname:short)").output.decode(errors="replace")
    near = difflib.get_close_matches(ref, names.splitlines(), n=3)
    raise UsageError(
        f"{path} has no commit {ref!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "git tag and git branch list them",
    )


def _unreadable(path: Path, errors: str) -> UsageError:
    """The error for a folder that git does not read."""
    if match := re.search("dubious ownership in repository at '(.+)'", errors):
        return UsageError(
            f"git does not read {match[1]}: the repository belongs to another user",
            hint=f"if you trust it: git config --global --add safe.directory '{match[1]}'",
        )
    if target := _elsewhere(path):
        return UsageError(
            f"{path} is a git worktree whose repository is not here: {target}",
            hint=f"mount it at this path, or build the files as they are: --kernel {path}",
        )
    if "not a git repository" in errors:
        return UsageError(
            f"{path} is not a git repository", hint=f"to build it as it is: --kernel {path}"
        )
    return UsageError(f"git cannot read {path}: {errors}")


def _elsewhere(path: Path) -> str:
    """The path of a worktree's repository if that does not exist; else empty."""
    try:
        text = untrusted.read_text(path, ".git")
    except Failure:
        return ""
    target = text.removeprefix("gitdir:").strip()
    return "" if catalog.is_folder(path / target) else target


def _incomplete(error: Failure, repository: Repository) -> Failure:
    """The error for missing objects: the repository is a partial clone, or broken."""
    if not any((repository.objects / "pack").glob("*.promisor")):
        return Failure(error.what, hint=FSCK)
    return Failure(
        f"{error.what}: it is a partial clone",
        hint=f"git -C {repository.name} worktree add FOLDER REF fetches the missing objects; "
        "then use --kernel FOLDER",
    )
