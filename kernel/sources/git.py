# SPDX-License-Identifier: GPL-2.0-or-later
"""A commit of a git repository, as a tree in the cache.

Of a local repository (a folder, or a file:// URL) objects are read: nothing is written to it, and
nothing that its configuration names runs. Of a remote one the commit alone is cloned. Either way
the tree is named by the commit's id, and is what this id stands for.
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

RECIPE = 2  # raise it when the same commit gives another tree


def source_tree(name: str, entry: Git) -> Tree:
    """The tree of a commit; raises UsageError for a repository or a ref that does not exist."""
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
    """The tree if it is unpacked. Which commit a remote ref names is not known without asking."""
    commit = _commit(entry) if _folder(entry) or remote.COMMIT.fullmatch(entry.ref) else None
    path = store.peek("sources", _key(commit)) if commit else None
    return _tree(entry, commit, path) if commit and path else None


def _key(commit: str) -> str:
    return store.digest("git", RECIPE, commit)


def _tree(entry: Git, commit: str, path: Path) -> Tree:
    origin = GitCommit(redact.text(entry.repository), entry.ref, commit)
    return Tree(path / "tree", origin, contents=f"git {commit} by recipe {RECIPE}")


def _folder(entry: Git) -> Path | None:
    """Where a local repository is; None for a remote one. Raises UsageError when it is nowhere."""
    text = entry.repository
    if "\0" in entry.ref:
        raise UsageError(f"{entry.ref!r} names no commit")
    if text.startswith("file://"):
        text = urllib.parse.unquote(urllib.parse.urlsplit(text).path)
    elif "://" in text:
        return None
    path = catalog.expand_path(text)
    if catalog.is_folder(path):
        return path
    if remote.is_url(text):
        return None
    raise UsageError(f"there is no folder {path}", hint="git clone makes one of a bundle")


def _commit(entry: Git) -> str:
    """What the ref names now."""
    path = _folder(entry)
    return _local_commit(path, entry.ref) if path else remote.commit(entry.repository, entry.ref)


def _repository(entry: Git, commit: str) -> Repository:
    """Where the objects of a commit are."""
    path = _folder(entry)
    if path is not None:
        found = _ask(path, "rev-parse", "--git-path", "objects")
        objects = path / os.fsdecode(found.output.removesuffix(b"\n"))
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
    found = _ask(path, "rev-parse", *options, f"{ref}^{{commit}}")
    answer = found.output.decode(errors="replace").strip()
    if found.code == 0 and remote.COMMIT.fullmatch(answer):
        return answer
    whole = _ask(path, "rev-parse", "--git-dir")
    if whole.code:
        raise _unreadable(path, whole.errors.strip())
    names = _ask(path, "for-each-ref", "--format=%(refname:short)").output.decode(errors="replace")
    near = difflib.get_close_matches(ref, names.splitlines(), n=3)
    raise UsageError(
        f"{path} has no commit {ref!r}",
        hint=f"did you mean {' or '.join(near)}?" if near else "git tag and git branch list them",
    )


def _unreadable(path: Path, errors: str) -> UsageError:
    """Why git does not read a folder, and the way out."""
    if found := re.search("dubious ownership in repository at '(.+)'", errors):
        return UsageError(
            f"git does not read {found[1]}: the repository belongs to another user",
            hint=f"if you trust it: git config --global --add safe.directory '{found[1]}'",
        )
    if target := _elsewhere(path):
        return UsageError(
            f"{path} is a git worktree whose repository is not here: {target}",
            hint=f"mount it at this path; or --kernel {path} takes the files as they are",
        )
    if "not a git repository" in errors:
        return UsageError(
            f"{path} is not a git repository", hint=f"--kernel {path} takes it as it is"
        )
    return UsageError(f"git cannot read {path}: {errors}")


def _elsewhere(path: Path) -> str:
    """Where the repository of a worktree should be, when it is not there; else empty."""
    try:
        text = untrusted.read_text(path, ".git")
    except Failure:
        return ""
    target = text.removeprefix("gitdir:").strip()
    return "" if catalog.is_folder(path / target) else target


def _incomplete(error: Failure, repository: Repository) -> Failure:
    """A commit of which objects are missing: a partial clone, or a broken repository."""
    if not any((repository.objects / "pack").glob("*.promisor")):
        return Failure(error.what, hint=FSCK)
    return Failure(
        f"{error.what}: it is a partial clone",
        hint=f"git -C {repository.name} worktree add FOLDER REF fetches what is missing; "
        "then --kernel FOLDER",
    )
