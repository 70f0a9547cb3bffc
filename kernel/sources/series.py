# SPDX-License-Identifier: GPL-2.0-or-later
"""A source tree with a series of patches on it, as a tree of its own in the cache.

The series is a folder (in the order of its quilt file `series`, else of the files' names), an mbox
as `git format-patch --stdout` and public-inbox give it, or one patch. Files that no patch touches
are hard links to the tree's own, so that only what changes takes time and space. GNU patch writes
a file anew and renames it: the tree itself never changes. It runs in the tool root without network,
and is told that patches are unified diffs, since it runs an editor for other ones.
"""

from __future__ import annotations

import email
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed, UserError
from kernel.host.process import run
from kernel.host.progress import step
from kernel.host.sandbox import BIND, Sandbox
from kernel.sources import directory
from kernel.sources.tree import Tree, checked

RECIPE = 1  # raise it when the same tree and patches give another tree
SUFFIXES = (".patch", ".diff", ".eml", ".mbox")
PATCH_S = 60  # what one patch may take
# Where a message begins in an mbox; a line of a text that begins with "From " has no date.
_MESSAGE = re.compile(rb"^From \S+.* \d\d:\d\d:\d\d.* \d{4}\n", re.MULTILINE)
_DIFF = re.compile(rb"^--- .*\n\+\+\+ |^diff --git |^rename from ", re.MULTILINE)
# Which file GNU patch is at, and what it says of one that it cannot change. In a refusal {0} is the
# file, {1} and so on are what the pattern's groups found.
_FILE = re.compile(r"patching file '?(.+?)'?$|\|(?:---|\+\+\+) [^/]+/(\S+)")
_REFUSALS = {
    r"Hunk #(\d+) FAILED at (\d+)": "{0}: hunk {1} does not fit at line {2}",
    r"No file to patch": "{0}: there is no such file",
    r"The next patch would create the file (.+),$": "{1}: the file is there already",
    r".*previously applied": "{0}: the change is there already",
    r"Ignoring (potentially dangerous file name.*)": "{1}",
    r".*(malformed patch.*)": "{1}",
}
_NUMBER = re.compile(r"\[[^]]*\b(\d+)/\d+\]")


@dataclass(frozen=True)
class Patch:
    """One patch of a series."""

    name: str  # for people: a file's name or a mail's subject
    text: bytes  # with a unified diff in it


def read(path: Path) -> tuple[Patch, ...]:
    """The patches of a series in their order; raises UserError when there are none."""
    if not path.exists():
        raise UserError(f"there is no patch series {path}")
    files = _listed(path) if path.is_dir() else [path]
    patches = tuple(patch for file in files for patch in _of_file(file))
    if not patches:
        raise UserError(
            f"{path} has no patches in it",
            hint="a series is a folder of *.patch files, an mbox or one patch",
        )
    return patches


def _listed(folder: Path) -> list[Path]:
    order = folder / "series"
    if not order.is_file():
        return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    # quilt: one file per line, options behind it, comments
    try:
        listed = order.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {order}: {error}") from None
    words = [line.split("#")[0].split() for line in listed.splitlines()]
    files = [folder / line[0] for line in words if line]
    for file in files:
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{order} names {file.name}, which is no file in {folder}")
    return files


def _of_file(path: Path) -> list[Patch]:
    try:
        data = path.read_bytes().replace(b"\r\n", b"\n")
    except OSError as error:
        raise UserError(f"cannot read the patches in {path}: {error.strerror}") from None
    starts = [found.end() for found in _MESSAGE.finditer(data)]
    if not starts:
        return [Patch(path.name, data)] if _DIFF.search(data) else []
    ends = [found.start() for found in _MESSAGE.finditer(data)][1:] + [len(data)]
    mails = [email.message_from_bytes(data[a:b]) for a, b in zip(starts, ends, strict=True)]
    found = [(mail, text) for mail in mails if _DIFF.search(text := _text(mail))]
    if len(found) == 1:
        return [Patch(path.name, found[0][1])]
    patches = [(_number(mail), Patch(_subject(mail), text)) for mail, text in found]
    numbers = [number for number, _ in patches]
    if None not in numbers and len(set(numbers)) == len(numbers):  # threads come in any order
        patches.sort(key=lambda one: one[0] or 0)
    return [patch for _, patch in patches]


def _text(mail: Message) -> bytes:
    """What a mail says, decoded, without quotations of other mails."""
    parts = [part for part in mail.walk() if part.get_content_maintype() == "text"]
    payloads = [part.get_payload(decode=True) for part in parts]
    return b"\n".join(one for one in payloads if isinstance(one, bytes))


def _subject(mail: Message) -> str:
    return " ".join(str(mail.get("Subject", "a mail without subject")).split())


def _number(mail: Message) -> int | None:
    found = _NUMBER.search(_subject(mail))
    return int(found[1]) if found else None


def applied(tree: Tree, series: Sequence[Path], tools: ToolRoot) -> Tree:
    """`tree` with all patches of some series on it, one series after the other.

    Raises UserError for a series that cannot be read, Failed with the patch, the file and the hunk
    for one that does not apply.
    """
    patches = [patch for path in series for patch in read(path)]
    if not patches:
        return tree
    key = store.digest("series", RECIPE, tree.identity, [patch.text for patch in patches])

    def make(path: Path) -> None:
        with step(f"applying {len(patches)} patches to Linux {tree.version}"):
            _copy(tree, path / "tree")
            apply(tree, patches, path, tools)
        checked(path / "tree", "the patched tree")

    path = store.get("sources", key, "the patched source", make, like=tree.path.parent)
    place = f"{tree.place} with {key}" if tree.place else ""
    origin = f"{tree.origin} with {len(patches)} patches {key}"
    return Tree(path / "tree", origin, place, contents=f"series {key}")


def _copy(tree: Tree, target: Path) -> None:
    """The tree as hard links; as copies when it is a user's own, who may write into its files.

    Folders, files and links: a socket or a pipe of what runs in the tree is no part of it. Raises
    Failed when the tree changed meanwhile, UserError for a file that cannot be read.
    """
    link = not tree.place and tree.path.stat().st_dev == target.parent.stat().st_dev
    target.mkdir()
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            with os.scandir(tree.path / folder) as entries:
                for entry in entries:
                    name = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != ".git" or not tree.place:
                            (target / name).mkdir()
                            folders.append(f"{name}/")
                    elif entry.is_symlink() or entry.is_file():
                        _copy_file(entry, target / name, link=link)
    except OSError as error:
        if store.is_full(error):
            raise
        raise UserError(f"cannot copy {error.filename}: {error.strerror}") from None
    if directory.changed(tree):
        raise Failed(f"{tree.path} changed while it was copied", hint="start again")


def _copy_file(entry: os.DirEntry[str], target: Path, *, link: bool) -> None:
    if link:
        os.link(entry.path, target, follow_symlinks=False)
        return
    shutil.copy2(entry.path, target, follow_symlinks=False)
    if not entry.is_symlink():  # without setuid and the like
        target.chmod(entry.stat().st_mode & 0o777)


def apply(tree: Tree, patches: Sequence[Patch], path: Path, tools: ToolRoot) -> None:
    """Changes `path`/tree, a copy of a tree or of a part of it, by patches.

    Raises Failed with the patch, the file and the hunk that does not fit; `path` holds the log.
    """
    sandbox = Sandbox(
        tools.root,
        read_only={"patches": path / "patches"},
        writable={"tree": path / "tree"},
    )
    (path / "patches").mkdir()
    for number, patch in enumerate(patches, start=1):
        (path / "patches" / str(number)).write_bytes(patch.text)
        log = path / "log"
        argv = ["patch", "--unified", "--strip=1", "--forward", "--batch", "--fuzz=0"]
        argv += ["--no-backup-if-mismatch", "--reject-file=-", f"--directory={BIND}/tree"]
        argv += [f"--input={BIND}/patches/{number}"]
        try:
            run(sandbox.argv(argv), log=log, doing=patch.name, timeout_s=PATCH_S)
        except Failed as error:
            told = log.read_text(errors="replace")
            raise Failed(
                f"{patch.name} (patch {number} of {len(patches)}) does not apply to Linux "
                f"{tree.version}:\n" + "\n".join(f"    {line}" for line in refusals(told)),
                hint="choose the kernel that the series is for, or rebase it",
            ) from error
        log.unlink()
    store.remove(path / "patches")


def refusals(told: str) -> list[str]:
    """What GNU patch did not do, from its output: file and hunk, or its own words."""
    lines = list(_refusals(told))
    return lines or told.strip().splitlines()[-3:]


def _refusals(told: str) -> Iterator[str]:
    file = ""
    for line in told.splitlines():
        if found := _FILE.match(line):
            file = found[1] or found[2]
        for pattern, refusal in _REFUSALS.items():
            if found := re.match(pattern, line):
                yield refusal.format(file, *found.groups())
