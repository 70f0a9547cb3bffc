# SPDX-License-Identifier: GPL-2.0-or-later
"""What of a user's disk the build of a module sees: its folder, and what that folder names.

A folder is taken as its user has it: headers of a neighbouring folder come in by a link or by
``#include "../common/x.h"``. What is outside of the folder is taken only from its git work tree,
or from another folder that the user named; then the copy that is built has the same places in it.
Files are read through directory descriptors, regular ones only, so that no link of a foreign
folder makes us read /etc/shadow or wait for a pipe.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.host.untrusted import FolderLimits

# What builds leave behind; make would take it for its own, made for another kernel.
PRODUCTS = (".cmd", ".ko", ".mod", ".mod.c", ".o", "Module.symvers", "modules.order")
OWN = FolderLimits()  # of the module's folder
OTHERS = FolderLimits(files=4_000, size=64 << 20)  # of a folder that it names
READ = 4 << 20  # bytes of a source that are searched for names of other files
MAKEFILES = ("Kbuild", "Makefile")
MOST_NAMES = 50_000  # of other files in sources and makefiles
_SOURCES = (".c", ".h", ".S", ".rs", ".inc")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)
_UPWARD = re.compile(r"(?<![\w.])\.\.(?:/[\w.+-]+)*(?![\w.])")  # .., ../include, ../../x.h


def skipped(name: str) -> bool:
    """Whether a file or folder of that name is no source: hidden, or made by a build."""
    return name.startswith(".") or name.endswith(PRODUCTS)


def _of_tests(folder: Path, name: str) -> bool:
    """Whether an entry is of tests or their results, which a build does not read."""
    if name in ("__pycache__", "conftest.py") or (name.startswith("test_") and name[-3:] == ".py"):
        return True
    results = settings().results_dir
    return name == results.name and results.resolve() == folder.joinpath(name).resolve()


def is_makefile(name: str) -> bool:
    """Whether a file, by its path, is part of what make reads."""
    last = name.rpartition("/")[2]
    return last in MAKEFILES or last.endswith((".mk", ".mak"))


@dataclass(frozen=True)
class Sources:
    """The files that a module is built from."""

    root: Path  # all of them are below it: the module's folder, or one that holds it
    place: str  # the module's folder below the root; "." when it is the root
    files: Mapping[str, str]  # name below the root → sha256, and "x" when it may be run
    links: Mapping[str, str] = field(default_factory=dict)  # name below the root → where it leads
    unseen: tuple[str, ...] = ()  # sentences about files that are named and not taken

    @property
    def folder(self) -> Path:
        """The module's folder."""
        return self.root / self.place

    def copy(self, target: Path) -> Path:
        """Copies all to a new folder and returns the module's in it.

        Raises Failure when a file is no longer what it was when the sources were listed.
        """
        (target / self.place).mkdir(parents=True, exist_ok=True)
        for name, state in self.files.items():
            copied = target / name
            untrusted.copy(self.root, name, copied)
            runs = state.endswith("x")
            copied.chmod(0o755 if runs else 0o644)
            if untrusted.sha256(target, name) != state.removesuffix("x"):
                raise Failure(f"{self.root / name} changed while it was copied", hint="start again")
        for name, link in self.links.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(link)
        return target / self.place

    def texts(self, wanted: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Name below the module's folder and text of its files with such an ending."""
        prefix = "" if self.place == "." else f"{self.place}/"
        for name in self.files:
            if name.startswith(prefix) and name.endswith(tuple(wanted)):
                yield name.removeprefix(prefix), text_of(self.root, name)

    def makefiles(self) -> dict[str, str]:
        """Name below the module's folder → text of what make reads there."""
        return {
            name: text
            for name, text in self.texts((*MAKEFILES, ".mk", ".mak"))
            if is_makefile(name)
        }


def text_of(base: Path, name: str) -> str:
    """The text of a source, as far as it is searched."""
    with untrusted.open_regular(base, name) as file:
        return file.read(READ).decode(errors="replace")


def sources(folder: Path, named: Sequence[Path] = ()) -> Sources:
    """What the module in `folder` is built from; named: other folders that the user named.

    Raises UsageError for a folder that cannot be read or holds too much, and for a link that leads
    to where the build does not see.
    """
    return _Search(folder.resolve(), tuple(path.resolve() for path in named)).all()


def work_tree(folder: Path) -> Path | None:
    """The top of the git work tree that a folder is in; None when it is in none.

    A .git that belongs neither to us nor to who has the folder around it was put there by somebody
    else, as in /tmp, and does not count.
    """
    for place in (folder, *folder.parents):
        try:
            owner = os.lstat(place / ".git").st_uid
        except OSError:
            continue
        return place if owner in (os.geteuid(), place.stat().st_uid) else None
    return None


@dataclass
class _Search:
    """Collects a module's files: its folder first, then what its files name, until all is there."""

    folder: Path  # a real path, as all here
    named: tuple[Path, ...]
    found: dict[Path, str] = field(default_factory=dict)
    links: dict[Path, str] = field(default_factory=dict)
    unseen: dict[str, None] = field(default_factory=dict)
    taken: set[Path] = field(default_factory=set)  # folders, with all that is below them
    files_of: set[Path] = field(default_factory=set)  # folders, with the files in them only
    searched: set[Path] = field(default_factory=set)
    looked: int = 0  # how many names were looked for

    def all(self) -> Sources:
        self.roots = tuple(path for path in (work_tree(self.folder), *self.named) if path)
        self._take(self.folder, OWN)
        while new := [path for path in self.found if path not in self.searched]:
            for path in sorted(new, key=lambda path: not is_makefile(path.name)):
                self.searched.add(path)
                self._search(path)
        root = Path(os.path.commonpath([self.folder, *self.found, *self.links]))
        return Sources(
            root,
            str(self.folder.relative_to(root)),
            {str(path.relative_to(root)): state for path, state in sorted(self.found.items())},
            {str(path.relative_to(root)): link for path, link in sorted(self.links.items())},
            tuple(self.unseen),
        )

    def _take(self, folder: Path, limits: FolderLimits, *, deep: bool = True) -> None:
        """Takes the files in a folder, and those below it."""
        if any(folder.is_relative_to(path) for path in self.taken) or (
            not deep and folder in self.files_of
        ):
            return

        def omitted(name: str) -> bool:
            at_top = not deep and (folder / name).is_dir()
            return skipped(name) or at_top or _of_tests(folder, name)

        entries = list(untrusted.regular_files(folder, omitted, limits))
        (self.taken if deep else self.files_of).add(folder)
        for entry in entries:
            path = folder / entry.name
            if "\ufffd" in os.fsencode(path).decode(errors="replace"):
                raise UsageError(f"{path}: its name is not UTF-8 text", hint="rename it")
            if entry.link:
                self._follow(path)
            else:
                self._take_file(folder, entry.name, runs=entry.executable)

    def _take_file(self, folder: Path, name: str, *, runs: bool) -> None:
        path = folder / name
        if path in self.found:
            return
        try:
            self.found[path] = untrusted.sha256(folder, name) + "x" * runs
        except Failure as error:
            raise UsageError(f"cannot read {path}: {error.what}") from None

    def _follow(self, link: Path) -> None:
        """Takes what a link leads to, when the build may see that."""
        target = Path(os.path.realpath(link))
        if not untrusted.kind(target):  # nothing is there to be seen
            return
        if not self._may_see(target):
            if not link.is_relative_to(self.folder):
                return  # of a neighbour, where it may well not matter
            raise UsageError(
                f"{link} is a link to {target}, which the build does not see",
                hint=self._ways_out("replace the link by a copy, or remove it"),
            )
        if target.is_file() or target.is_dir():
            self.links[link] = os.path.relpath(target, link.parent)
            self._reach(target)

    def _may_see(self, target: Path) -> bool:
        if target.is_relative_to(self.folder):
            return True
        return any(
            target.is_relative_to(root)
            and not any(part.startswith(".") for part in target.relative_to(root).parts)
            for root in self.roots
        )

    def _ways_out(self, other: str) -> str:
        if work_tree(self.folder):
            return f"a build sees the module's folder and its git work tree: {other}"
        return f"a build sees the module's folder only, which is in no git work tree: {other}"

    def _way(self) -> str:
        if work_tree(self.folder):
            return "copy it into the git work tree"
        return "copy it into the folder, or keep both in one git work tree"

    def _search(self, path: Path) -> None:
        """Takes what a source or a makefile names outside of the module's folder."""
        makefile = is_makefile(path.name)
        if not makefile and path.suffix not in _SOURCES:
            return
        text = text_of(path.parent, path.name)
        upward = dict.fromkeys(_UPWARD.findall(text))
        places = (path.parent, self.folder)
        for name in upward:
            for target in {Path(os.path.normpath(place / name)) for place in places}:
                self._want(target, path, name, folders=makefile)
        # a makefile's -I$(src)/.. makes "common/x.h" a name of a file there
        for name in dict.fromkeys(_INCLUDE.findall(text)):
            for folder in self.files_of:
                self._want(Path(os.path.normpath(folder / name)), path, name, folders=False)

    def _want(self, target: Path, source: Path, name: str, *, folders: bool) -> None:
        """Takes a file or folder that a source names, if it is there and may be seen."""
        self.looked += 1
        if self.looked > MOST_NAMES:
            return
        target = Path(os.path.realpath(target))
        there = untrusted.kind(target) in ("file", "folder" if folders else "file")
        if target.is_relative_to(self.folder) or not there:
            return
        if not self._may_see(target):
            if target.is_file():
                self.unseen[
                    f"{source} names {name}, which the build does not see: {self._way()}"
                ] = None
            return
        try:
            self._reach(target)
        except UsageError as error:  # it may do without: let make say
            self.unseen[f"{source} names {name}, which is not taken: {error.what}"] = None

    def _reach(self, target: Path) -> None:
        """Takes a folder, or a file with what is beside it, which it may include."""
        folder = target if target.is_dir() else target.parent
        try:
            # of a folder that holds the module's, the files and no neighbours
            self._take(folder, OTHERS, deep=not self.folder.is_relative_to(folder))
        except UsageError:
            if folder == target or target.stat().st_size > OTHERS.size:
                raise
            self._take_file(folder, target.name, runs=os.access(target, os.X_OK))
