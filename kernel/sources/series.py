# SPDX-License-Identifier: GPL-2.0-or-later
"""A source tree with series of patches on it, as a tree of its own in the cache.

What a series is, `kernel.sources.reader` knows. Files that no patch touches are hard links to the
tree's own, so that only what changes takes time and space. GNU patch writes a file anew and renames
it: the tree itself never changes. It runs in the tool root without network, and gets the diffs
alone, with --unified: for some other formats it would run an editor.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from blockyard.kernel.host import commands, store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.installation import as_typed
from blockyard.kernel.host.process import run
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.sources import directory, prefixes, targets, unified
from blockyard.kernel.sources.origin import Patched
from blockyard.kernel.sources.patches import Omitted, Patch, Series
from blockyard.kernel.sources.reader import read
from blockyard.kernel.sources.tree import Tree, checked

__all__ = ["Omitted", "Patch", "Series", "applied", "apply", "read", "refusals"]

RECIPE = 3  # raise it when the same tree and patches give another tree
PATCH_S = 60  # what one patch may take
# Which file GNU patch is at, and what it says of one that it cannot change. In a refusal {0} is the
# file, {1} and so on are what the pattern's groups found.
_FILE = re.compile(
    r"patching file '?(.+?)'?(?: \((?:renamed|copied) from .+\))?$"
    r"|\|(?:---|\+\+\+|diff --git) [^/]+/(\S+)"
)
_OFFSET = re.compile(r"Hunk #(\d+) succeeded at \d+ .*\(offset (-?)(\d+) lines?\)")
_REFUSALS = {
    r"Hunk #(\d+) FAILED at (\d+)": "{0}: hunk {1} does not fit at line {2}",
    r"No file to patch": "{0}: there is no such file",
    r"Not deleting file (.+) as content differs": "{1}: it has other lines than the patch removes",
    r"The next patch would create the file (.+),$": "{1}: the file is there already",
    r"The next patch would delete the file (.+),$": "{1}: there is no such file",
    r"Cannot (rename|copy) file without": "cannot {1} a file that the same patch moves, or whose "
    "name has a space",
    r".*previously applied": "{0}: the change is there already",
    r"Ignoring (potentially dangerous file name.*)": "{1}",
    r".*(malformed patch.*)": "{1}",
}
SHOWN = 30  # lines of a series that are printed before it is applied
OFFSETS = 5  # hunks at other lines that are named, per patch
ASKED = 50  # patches that are tried backwards, to see whether they are there already


def applied(
    tree: Tree, series: Sequence[Path], tools: ToolRoot, version: int | None = None
) -> Tree:
    """`tree` with all patches of some series on it, one series after the other.

    version: of each series; None takes the newest. Raises UsageError for a series that cannot be
    read, Failure with the patch, the file and the hunk for one that does not apply.
    """
    found = [read(path, version) for path in series]
    for one in found:
        announce(one)
    patches = in_usual_form(tree, [patch for one in found for patch in one.patches])
    if not patches:
        return tree
    key = store.digest("series", RECIPE, tree.identity, [patch.text for patch in patches])

    def make(path: Path) -> None:
        with step(f"applying {len(patches)} patches to Linux {tree.version}"):
            _copy(tree, path / "tree")
            apply(tree, patches, path, tools)
        checked(path / "tree", "the patched tree")

    path = store.get("sources", key, "the patched source", make, like=tree.path.parent)
    place = f"{tree.build_id} with {key}" if tree.build_id else ""
    origin = Patched(tree.origin, len(patches), key)
    return Tree(path / "tree", origin, place, contents=f"series {key}")


@cache
def announce(series: Series) -> None:
    """Says what is taken and what is left out, once."""
    lines = series.table()
    for line in lines[:SHOWN]:
        note(line)
    if len(lines) > SHOWN:
        note(as_typed(f"  ... and {len(lines) - SHOWN} lines more: ./inv series {series.name}"))


def in_usual_form(tree: Tree, patches: Sequence[Patch]) -> list[Patch]:
    """The patches with a/ and b/ before the names of their files."""
    made: set[str] = set()  # files and folders that patches before bring

    def exists(name: str) -> bool:
        inside = not name.startswith("/") and ".." not in name.split("/")
        return name in made or (inside and os.path.lexists(tree.path / name))

    found = []
    for patch in patches:
        files = unified.scan(patch.text).files
        strip = prefixes.strip_of(files, exists) if patch.strip is None else patch.strip
        text = b"".join(prefixes.usual(file, strip) for file in files)
        found.append(replace(patch, text=text, strip=prefixes.USUAL))
        for file in files:
            name = prefixes.touched(file, strip)
            while name and name not in made:
                made.add(name)
                name = name.rpartition("/")[0]
    return found


def _copy(tree: Tree, target: Path) -> None:
    """The tree as hard links; as copies when it is a user's own, who may write into its files.

    Folders, files and links: a socket or a pipe of what runs in the tree is no part of it. Raises
    Failure when the tree changed meanwhile, UsageError for a file that cannot be read.
    """
    link = not tree.build_id and tree.path.stat().st_dev == target.parent.stat().st_dev
    target.mkdir()
    folders = [""]
    try:
        while folders:
            folder = folders.pop()
            with os.scandir(tree.path / folder) as entries:
                for entry in entries:
                    name = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != ".git" or not tree.build_id:
                            (target / name).mkdir()
                            folders.append(f"{name}/")
                    elif entry.is_symlink() or entry.is_file():
                        _copy_file(entry, target / name, link=link)
    except OSError as error:
        if store.is_full(error):
            raise
        raise UsageError(f"cannot copy {error.filename}: {error.strerror}") from None
    if directory.changed(tree):
        raise Failure(f"{tree.path} changed while it was copied", hint="start again")


def _copy_file(entry: os.DirEntry[str], target: Path, *, link: bool) -> None:
    if link:
        os.link(entry.path, target, follow_symlinks=False)
        return
    shutil.copy2(entry.path, target, follow_symlinks=False)
    if not entry.is_symlink():  # without setuid and the like
        target.chmod(entry.stat().st_mode & 0o777)


def apply(tree: Tree, patches: Sequence[Patch], path: Path, tools: ToolRoot) -> None:
    """Changes `path`/tree, a copy of a tree or of a part of it, by patches.

    Notes hunks that fit at other lines than they name. Raises Failure with the patch, the file and
    the hunk that does not fit; `path` holds the log.
    """
    sandbox = Sandbox(
        tools.root,
        read_only={"patches": path / "patches"},
        writable={"tree": path / "tree"},
    )
    (path / "patches").mkdir()
    for number, patch in enumerate(patches, start=1):
        (path / "patches" / str(number)).write_bytes(patch.text)
    for number, patch in enumerate(patches, start=1):
        log = path / "log"
        argv = ["patch", "--unified", "--strip=1", "--forward", "--batch", "--fuzz=0"]
        argv += ["--no-backup-if-mismatch", "--reject-file=-", f"--directory={BIND}/tree"]
        argv += [f"--input={BIND}/patches/{number}"]
        if objections := targets.objections(path / "tree", unified.scan(patch.text).files):
            raise _refused(tree, patches, number, objections, path, tools)
        try:
            run(sandbox.argv(argv), log=log, doing=patch.name, timeout_s=PATCH_S)
        except Failure as error:
            told = refusals(commands.without_headings(log.read_text(errors="replace")))
            raise _refused(tree, patches, number, told, path, tools) from error
        if moved := offsets(log.read_text(errors="replace")):
            note(f"{patch.name}: {'; '.join(moved)}")
        log.unlink()
    store.remove(path / "patches")


def _refused(
    tree: Tree,
    patches: Sequence[Patch],
    number: int,
    reasons: Sequence[str],
    path: Path,
    tools: ToolRoot,
) -> Failure:
    """The error for a patch that does not apply."""
    lines = [f"    {line}" for line in reasons]
    hint = "choose the kernel that the series is for, or rebase it"
    if any(targets.NO_CONTEXT in reason for reason in reasons):
        hint = "make the diff with context lines: git diff, or diff -u"
    if there := _already(tree, patches, number, path, tools):
        names = ", ".join(f"{one} ({patches[one - 1].name})" for one in there)
        lines.append(f"  already in Linux {tree.version}: patch {names}")
        hint = "leave out what is there: list the others in a file `series`, as quilt has it"
    return Failure(
        f"{patches[number - 1].name} (patch {number} of {len(patches)}) does not apply to Linux "
        f"{tree.version}:\n" + "\n".join(lines),
        hint=hint,
    )


def _already(
    tree: Tree, patches: Sequence[Patch], first: int, path: Path, tools: ToolRoot
) -> list[int]:
    """Which patches from `first` on the tree has already: each file shows what they leave.

    What their hunks leave, GNU patch can take back; whether files are there, it does not look.
    """
    sandbox = Sandbox(tools.root, read_only={"patches": path / "patches", "tree": tree.path})
    argv = ["patch", "--unified", "--strip=1", "--reverse", "--dry-run", "--force", "--fuzz=0"]
    argv += ["--reject-file=-", f"--directory={BIND}/tree"]
    found = []
    for number in range(first, min(first + ASKED, len(patches) + 1)):
        if not targets.shows(tree.path, unified.scan(patches[number - 1].text).files):
            continue
        command = sandbox.argv([*argv, f"--input={BIND}/patches/{number}"])
        with contextlib.suppress(Failure):
            run(command, log=path / "backwards", doing="", timeout_s=PATCH_S)
            found.append(number)
    return found


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


def offsets(told: str) -> list[str]:
    """The hunks that GNU patch put at other lines than they name, from its output."""
    found, file = [], ""
    for line in told.splitlines():
        if name := _FILE.match(line):
            file = name[1] or name[2]
        if at := _OFFSET.match(line):
            lines = f"{at[3]} line{'s' if at[3] != '1' else ''}"
            found.append(f"hunk {at[1]} of {file} fits {lines} further {'up' if at[2] else 'down'}")
    if len(found) > OFFSETS:
        return [*found[:OFFSETS], f"and {len(found) - OFFSETS} hunks more"]
    return found
