# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects the sources of a module: the files in its folder, and files outside that those name.

Headers can be in a neighbouring folder, reached by a link or ``#include "../common/x.h"``. Files
outside of the module's folder are taken only from its git work tree or from another folder that the
user named. The copy that is built keeps their relative paths.

Only regular files are read, through directory descriptors. So a link in a stranger's folder can
neither make us read /etc/shadow nor wait for a pipe.
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

# Build products, perhaps of another kernel; make would reuse them.
PRODUCTS = (".cmd", ".ko", ".mod", ".mod.c", ".o", "Module.symvers", "modules.order")
OWN = FolderLimits()  # of the module's folder
OTHERS = FolderLimits(files=4_000, size=64 << 20)  # of a folder outside
READ = 4 << 20  # bytes of a source that are searched for names of other files
MAKEFILES = ("Kbuild", "Makefile")
MOST_NAMES = 50_000  # names of other files that are looked up
_SOURCES = (".c", ".h", ".S", ".rs", ".inc")
_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*["<]([^">\n]+)[">]', re.MULTILINE)
_UPWARD = re.compile(r"(?<![\w.])\.\.(?:/[\w.+-]+)*(?![\w.])")  # .., ../include, ../../x.h


def skipped(name: str) -> bool:
    """Whether a file or folder of that name is ignored: hidden, or a build product."""
    return name.startswith(".") or name.endswith(PRODUCTS)


def _of_tests(folder: Path, name: str) -> bool:
    """Whether an entry belongs to tests or their results, which a build does not read."""
    if name in ("__pycache__", "conftest.py") or (name.startswith("test_") and name[-3:] == ".py"):
        return True
    results = settings().results_dir
    return name == results.name and results.resolve() == folder.joinpath(name).resolve()


def is_makefile(name: str) -> bool:
    """Whether make reads the file with this path."""
    last = name.rpartition("/")[2]
    return last in MAKEFILES or last.endswith((".mk", ".mak"))


@dataclass(frozen=True)
class Sources:
    """The files that a module is built from."""

    root: Path  # a folder with all files: the module's folder or a parent of it
    subfolder: str  # the module's folder relative to the root; "." when it is the root
    files: Mapping[str, str]  # path below the root → sha256, followed by "x" if executable
    links: Mapping[str, str] = field(default_factory=dict)  # path below the root → target
    unseen: tuple[str, ...] = ()  # sentences about files that are named but not included

    @property
    def folder(self) -> Path:
        """The module's folder."""
        return self.root / self.subfolder

    def copy(self, target: Path) -> Path:
        """Copies all files to a new folder; the path of the module's folder in it.

        Raises Failure when a file has changed since the sources were listed.
        """
        (target / self.subfolder).mkdir(parents=True, exist_ok=True)
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
        return target / self.subfolder

    def texts(self, endings: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Path and text of the files in the module's folder with one of these endings."""
        prefix = "" if self.subfolder == "." else f"{self.subfolder}/"
        for name in self.files:
            if name.startswith(prefix) and name.endswith(tuple(endings)):
                yield name.removeprefix(prefix), text_of(self.root, name)

    def makefiles(self) -> dict[str, str]:
        """Path → text of the makefiles in the module's folder."""
        return {
            name: text
            for name, text in self.texts((*MAKEFILES, ".mk", ".mak"))
            if is_makefile(name)
        }


def text_of(base: Path, name: str) -> str:
    """The first READ bytes of a source, as text."""
    with untrusted.open_regular(base, name) as file:
        return file.read(READ).decode(errors="replace")


def sources(folder: Path, named: Sequence[Path] = ()) -> Sources:
    """The sources of the module in `folder`; named: further folders that the user named.

    Raises UsageError for a folder that cannot be read or is too large, and for a link to a file
    that the build is not allowed to see.
    """
    return _Search(folder.resolve(), tuple(path.resolve() for path in named)).all()


def work_tree(folder: Path) -> Path | None:
    """The top of the git work tree that contains a folder; None when there is none.

    A .git counts only if it belongs to us or to the owner of its folder: in /tmp anybody could have
    put one there.
    """
    for top in (folder, *folder.parents):
        try:
            owner = os.lstat(top / ".git").st_uid
        except OSError:
            continue
        return top if owner in (os.geteuid(), top.stat().st_uid) else None
    return None


@dataclass
class _Search:
    """Collects a module's files: its folder first, then the files that those name, and so on."""

    folder: Path  # a real path, as all paths here
    named: tuple[Path, ...]
    files: dict[Path, str] = field(default_factory=dict)
    links: dict[Path, str] = field(default_factory=dict)
    unseen: dict[str, None] = field(default_factory=dict)
    taken: set[Path] = field(default_factory=set)  # folders taken with their subfolders
    files_of: set[Path] = field(default_factory=set)  # folders taken without subfolders
    searched: set[Path] = field(default_factory=set)
    lookups: int = 0  # names looked up so far

    def all(self) -> Sources:
        self.roots = tuple(path for path in (work_tree(self.folder), *self.named) if path)
        self._take(self.folder, OWN)
        while new := [path for path in self.files if path not in self.searched]:
            for path in sorted(new, key=lambda path: not is_makefile(path.name)):
                self.searched.add(path)
                self._search(path)
        root = Path(os.path.commonpath([self.folder, *self.files, *self.links]))
        return Sources(
            root,
            str(self.folder.relative_to(root)),
            {str(path.relative_to(root)): state for path, state in sorted(self.files.items())},
            {str(path.relative_to(root)): link for path, link in sorted(self.links.items())},
            tuple(self.unseen),
        )

    def _take(self, folder: Path, limits: FolderLimits, *, deep: bool = True) -> None:
        """Takes the files in a folder and, if `deep`, in its subfolders."""
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
        if path in self.files:
            return
        try:
            self.files[path] = untrusted.sha256(folder, name) + "x" * runs
        except Failure as error:
            raise UsageError(f"cannot read {path}: {error.what}") from None

    def _follow(self, link: Path) -> None:
        """Takes the target of a link, if the build may see it."""
        target = Path(os.path.realpath(link))
        if not untrusted.kind(target):  # a dangling link
            return
        if not self._may_see(target):
            if not link.is_relative_to(self.folder):
                return  # in a folder outside, where it may not matter
            raise UsageError(
                f"{link} is a link to {target}, which the build cannot see",
                hint=self._what_to_do("replace the link by a copy, or remove it"),
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

    def _what_to_do(self, action: str) -> str:
        if work_tree(self.folder):
            return f"a build sees the module's folder and its git work tree: {action}"
        return f"a build sees only the module's folder (it has no git work tree): {action}"

    def _where_to_copy(self) -> str:
        if work_tree(self.folder):
            return "copy it into the git work tree"
        return "copy it into the folder, or keep both in one git work tree"

    def _search(self, path: Path) -> None:
        """Takes the files outside of the module's folder that a source or makefile names."""
        makefile = is_makefile(path.name)
        if not makefile and path.suffix not in _SOURCES:
            return
        text = text_of(path.parent, path.name)
        upward = dict.fromkeys(_UPWARD.findall(text))
        bases = (path.parent, self.folder)
        for name in upward:
            for target in {Path(os.path.normpath(base / name)) for base in bases}:
                self._look_up(target, path, name, folders=makefile)
        # with -I$(src)/.. in a makefile, "common/x.h" is a file in the parent folder
        for name in dict.fromkeys(_INCLUDE.findall(text)):
            for folder in self.files_of:
                self._look_up(Path(os.path.normpath(folder / name)), path, name, folders=False)

    def _look_up(self, target: Path, source: Path, name: str, *, folders: bool) -> None:
        """Takes a file or folder that a source names, if it exists and may be seen."""
        self.lookups += 1
        if self.lookups > MOST_NAMES:
            return
        target = Path(os.path.realpath(target))
        exists = untrusted.kind(target) in ("file", "folder" if folders else "file")
        if target.is_relative_to(self.folder) or not exists:
            return
        if not self._may_see(target):
            if target.is_file():
                problem = f"{source} names {name}, which the build cannot see"
                self.unseen[f"{problem}: {self._where_to_copy()}"] = None
            return
        try:
            self._reach(target)
        except UsageError as error:  # the build may not need it: make will tell
            self.unseen[f"{source} names {name}, which is not included: {error.what}"] = None

    def _reach(self, target: Path) -> None:
        """Takes a folder, or a file with the other files in its folder, which it may include."""
        folder = target if target.is_dir() else target.parent
        try:
            # from a parent of the module's folder, take its files but not its other subfolders
            self._take(folder, OTHERS, deep=not self.folder.is_relative_to(folder))
        except UsageError:
            if folder == target or target.stat().st_size > OTHERS.size:
                raise
            self._take_file(folder, target.name, runs=os.access(target, os.X_OK))
