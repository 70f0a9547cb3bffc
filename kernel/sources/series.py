# SPDX-License-Identifier: GPL-2.0-or-later
"""Applies patch series to a source tree; the result is another tree in the cache.

`kernel.sources.reader` reads the series. Files that no patch touches are hard links to the original
tree, so only changed files take time and space. GNU patch writes a new file and renames it, so the
original tree never changes. It runs in the tool root without network, and gets only the diffs, with
--unified: for ed scripts it would run an editor.
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

RECIPE = 3  # part of the key: raise it when the same tree and patches give a different tree
PATCH_S = 60  # timeout for a patch
# GNU patch's lines that name the file, and its errors. In the texts {0} is the file, {1} and so on
# are the groups of the pattern.
_FILE = re.compile(
    r"patching file '?(.+?)'?(?: \((?:renamed|copied) from .+\))?$"
    r"|\|(?:---|\+\+\+|diff --git) [^/]+/(\S+)"
)
_OFFSET = re.compile(r"Hunk #(\d+) succeeded at \d+ .*\(offset (-?)(\d+) lines?\)")
_REFUSALS = {
    r"Hunk #(\d+) FAILED at (\d+)": "{0}: hunk {1} does not fit at line {2}",
    r"No file to patch": "{0}: no such file",
    r"Not deleting file (.+) as content differs": "{1}: its lines differ from those to remove",
    r"The next patch would create the file (.+),$": "{1}: the file already exists",
    r"The next patch would delete the file (.+),$": "{1}: no such file",
    r"Cannot (rename|copy) file without": "cannot {1} a file that the same patch moves, or whose "
    "name has a space",
    r".*previously applied": "{0}: the change is already applied",
    r"Ignoring (potentially dangerous file name.*)": "{1}",
    r".*(malformed patch.*)": "{1}",
}
SHOWN = 30  # lines of a series that are printed before it is applied
OFFSETS = 5  # hunks with an offset that are listed for a patch
TRIED_BACKWARDS = 50  # patches that are checked for being applied already


def applied(
    tree: Tree, series: Sequence[Path], tools: ToolRoot, version: int | None = None
) -> Tree:
    """`tree` with all patches of some series applied, one series after the other.

    version: of each series; None takes the newest. Raises UsageError for a series that cannot be
    read, Failure with the patch, the file and the hunk for one that does not apply.
    """
    all_series = [read(path, version) for path in series]
    for loaded in all_series:
        announce(loaded)
    patches = in_usual_form(tree, [patch for loaded in all_series for patch in loaded.patches])
    if not patches:
        return tree
    key = store.digest("series", RECIPE, tree.identity, [patch.text for patch in patches])

    def make(path: Path) -> None:
        with step(f"applying {len(patches)} patches to Linux {tree.version}"):
            _copy(tree, path / "tree")
            apply(tree, patches, path, tools)
        checked(path / "tree", "the patched tree")

    path = store.get("sources", key, "the patched source", make, like=tree.path.parent)
    build_id = f"{tree.build_id} with {key}" if tree.build_id else ""
    origin = Patched(tree.origin, len(patches), key)
    return Tree(path / "tree", origin, build_id, contents=f"series {key}")


@cache
def announce(series: Series) -> None:
    """Prints the patches of a series and what is left out; once for each series."""
    lines = series.table()
    for line in lines[:SHOWN]:
        note(line)
    if len(lines) > SHOWN:
        note(as_typed(f"  ... and {len(lines) - SHOWN} more lines: ./inv series {series.name}"))


def in_usual_form(tree: Tree, patches: Sequence[Patch]) -> list[Patch]:
    """The patches, rewritten with the prefixes a/ and b/."""
    made: set[str] = set()  # files and folders that earlier patches create

    def exists(name: str) -> bool:
        inside = not name.startswith("/") and ".." not in name.split("/")
        return name in made or (inside and os.path.lexists(tree.path / name))

    rewritten = []
    for patch in patches:
        files = unified.scan(patch.text).files
        strip = prefixes.strip_of(files, exists) if patch.strip is None else patch.strip
        text = b"".join(prefixes.usual(file, strip) for file in files)
        rewritten.append(replace(patch, text=text, strip=prefixes.USUAL))
        for file in files:
            name = prefixes.touched(file, strip)
            while name and name not in made:
                made.add(name)
                name = name.rpartition("/")[0]
    return rewritten


def _copy(tree: Tree, target: Path) -> None:
    """Hard-links a tree; copies a user's directory, whose files the user may write to.

    Only folders, files and links: sockets and pipes belong to running programs. Raises Failure when
    the tree changed meanwhile, UsageError for a file that cannot be read.
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
    if not entry.is_symlink():  # drop setuid, setgid and sticky bits
        target.chmod(entry.stat().st_mode & 0o777)


def apply(tree: Tree, patches: Sequence[Patch], path: Path, tools: ToolRoot) -> None:
    """Applies patches to `path`/tree, a copy of a tree or of a part of it.

    Prints a note for hunks that apply with an offset. Raises Failure with the patch, the file and
    the hunk that does not fit; the log is in `path`.
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
            reasons = refusals(commands.without_headings(log.read_text(errors="replace")))
            raise _refused(tree, patches, number, reasons, path, tools) from error
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
    if present := _already_applied(tree, patches, number, path, tools):
        names = ", ".join(f"{at} ({patches[at - 1].name})" for at in present)
        lines.append(f"  already in Linux {tree.version}: patch {names}")
        hint = "omit these patches: list the others in a file `series`, as quilt does"
    return Failure(
        f"{patches[number - 1].name} (patch {number} of {len(patches)}) does not apply to Linux "
        f"{tree.version}:\n" + "\n".join(lines),
        hint=hint,
    )


def _already_applied(
    tree: Tree, patches: Sequence[Patch], first: int, path: Path, tools: ToolRoot
) -> list[int]:
    """The numbers of patches from `first` on that the tree already has.

    Tries to reverse the hunks with GNU patch; `targets.shows` checks which files exist, which GNU
    patch does not.
    """
    sandbox = Sandbox(tools.root, read_only={"patches": path / "patches", "tree": tree.path})
    argv = ["patch", "--unified", "--strip=1", "--reverse", "--dry-run", "--force", "--fuzz=0"]
    argv += ["--reject-file=-", f"--directory={BIND}/tree"]
    numbers = []
    for number in range(first, min(first + TRIED_BACKWARDS, len(patches) + 1)):
        if not targets.shows(tree.path, unified.scan(patches[number - 1].text).files):
            continue
        command = sandbox.argv([*argv, f"--input={BIND}/patches/{number}"])
        with contextlib.suppress(Failure):
            run(command, log=path / "backwards", doing="", timeout_s=PATCH_S)
            numbers.append(number)
    return numbers


def refusals(output: str) -> list[str]:
    """The errors in GNU patch's output as "file: reason"; its last lines if none is known."""
    lines = list(_refusals(output))
    return lines or output.strip().splitlines()[-3:]


def _refusals(output: str) -> Iterator[str]:
    file = ""
    for line in output.splitlines():
        if match := _FILE.match(line):
            file = match[1] or match[2]
        for pattern, refusal in _REFUSALS.items():
            if match := re.match(pattern, line):
                yield refusal.format(file, *match.groups())


def offsets(output: str) -> list[str]:
    """The hunks that GNU patch applied with an offset, from its output; at most `OFFSETS`."""
    hunks, file = [], ""
    for line in output.splitlines():
        if name := _FILE.match(line):
            file = name[1] or name[2]
        if hunk := _OFFSET.match(line):
            lines = f"{hunk[3]} line{'s' if hunk[3] != '1' else ''}"
            direction = "up" if hunk[2] else "down"
            hunks.append(f"hunk {hunk[1]} of {file} fits {lines} further {direction}")
    if len(hunks) > OFFSETS:
        return [*hunks[:OFFSETS], f"and {len(hunks) - OFFSETS} more hunks"]
    return hunks
