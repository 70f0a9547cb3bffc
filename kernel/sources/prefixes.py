# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands before a file's name in a diff: ``a/`` and ``b/``, other words, or nothing.

Git writes a/ and b/, i/ and w/ with diff.mnemonicPrefix, nothing with diff.noprefix; quilt says per
patch how many folders to strip. Which it is shows in the tree: the number of folders is the one
with which the files are there. A diff is then rewritten to have a/ and b/, so that GNU patch gets
one form and the same changes have the same key in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from blockyard.kernel.sources.unified import NULL, FileDiff

USUAL = 1  # folders to strip
_TRIED = (1, 0, 2, 3)
_NAMED = re.compile(rb'^(--- |\+\+\+ )("?)(.*)$')


def strip_of(files: Sequence[FileDiff], exists: Callable[[str], bool]) -> int:
    """How many folders to strip, so that most files of a diff are there.

    exists: whether the tree has a file or a folder.
    """
    bare = any(one.old == one.new for one in files)
    tried = (0, *_TRIED) if bare else _TRIED  # of two that are equally good the first
    return max(dict.fromkeys(tried), key=lambda strip: _found(files, strip, exists))


def _found(files: Sequence[FileDiff], strip: int, exists: Callable[[str], bool]) -> int:
    return sum(_is_there(one, strip, exists) for one in files)


def _is_there(file: FileDiff, strip: int, exists: Callable[[str], bool]) -> bool:
    if file.old != NULL:
        names = [file.old] if file.new == NULL else [file.old, file.new]
        return any(exists(name) for one in names if (name := stripped(one, strip)))
    folder = stripped(file.new, strip).rpartition("/")[0]
    return bool(folder) and exists(folder)


def stripped(name: str, strip: int) -> str:
    """A name without its first folders; empty when it has no more than these."""
    parts = name.split("/", strip)
    return parts[strip] if len(parts) > strip else ""


def touched(file: FileDiff, strip: int) -> str:
    """The file that is there afterwards; empty when there is none."""
    return "" if file.new == NULL else stripped(file.new, strip)


def usual(file: FileDiff, strip: int) -> bytes:
    """The diff with a/ and b/ before its names."""
    if strip == USUAL:
        return file.text
    lines = file.text.split(b"\n")
    head = next((at for at, line in enumerate(lines) if line.startswith(b"@@ ")), len(lines))
    for at in range(head):
        if lines[at].startswith(b"diff --git "):
            lines[at] = _git_line(file, strip, lines[at])
        elif found := _NAMED.match(lines[at]):
            lines[at] = _name_line(found, strip)
    return b"\n".join(lines)


def _git_line(file: FileDiff, strip: int, line: bytes) -> bytes:
    old, new = (
        stripped(file.new if name == NULL else name, strip).encode(errors="surrogateescape")
        for name in (file.old, file.old if file.new == NULL else file.new)
    )
    if not old or not new or re.search(rb'[\s"]', old + new):
        return line  # GNU patch takes the names of the lines below
    return b"diff --git a/%b b/%b" % (old, new)


def _name_line(found: re.Match[bytes], strip: int) -> bytes:
    kind, quote, name = found.groups()
    if name.startswith(NULL.encode()):
        return found[0]
    prefix = b"a" if kind == b"--- " else b"b"
    return kind + quote + b"/".join([prefix, *name.split(b"/")[strip:]])
