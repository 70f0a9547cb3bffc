# SPDX-License-Identifier: GPL-2.0-or-later
"""Prefixes of file names in a diff: ``a/`` and ``b/``, others, or none.

git writes a/ and b/, or i/ and w/ with diff.mnemonicPrefix, or nothing with diff.noprefix; quilt
has the number of folders to strip for each patch. Otherwise the number is detected: the one with
which the files exist in the tree. The diff is then rewritten with a/ and b/, so that GNU patch gets
a single form and equal changes have the same key in the cache.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from blockyard.kernel.sources.unified import NULL, FileDiff

USUAL = 1  # folders to strip
_TRIED = (1, 0, 2, 3)
_NAMED = re.compile(rb'^(--- |\+\+\+ )("?)(.*)$')


def strip_of(files: Sequence[FileDiff], exists: Callable[[str], bool]) -> int:
    """The number of folders to strip with which most files of a diff exist.

    exists: whether the tree has a file or a folder.
    """
    bare = any(file.old == file.new for file in files)
    tried = (0, *_TRIED) if bare else _TRIED  # of equally good numbers the first
    return max(dict.fromkeys(tried), key=lambda strip: _matches(files, strip, exists))


def _matches(files: Sequence[FileDiff], strip: int, exists: Callable[[str], bool]) -> int:
    return sum(_exists(file, strip, exists) for file in files)


def _exists(file: FileDiff, strip: int, exists: Callable[[str], bool]) -> bool:
    """Whether the tree has a file of a diff; for a new file: whether it has its folder."""
    if file.old != NULL:
        names = [file.old] if file.new == NULL else [file.old, file.new]
        return any(exists(name) for full in names if (name := stripped(full, strip)))
    folder = stripped(file.new, strip).rpartition("/")[0]
    return bool(folder) and exists(folder)


def stripped(name: str, strip: int) -> str:
    """A name without its first `strip` folders; empty when nothing is left."""
    parts = name.split("/", strip)
    return parts[strip] if len(parts) > strip else ""


def touched(file: FileDiff, strip: int) -> str:
    """The name of the file after the patch; empty when the patch removes it."""
    return "" if file.new == NULL else stripped(file.new, strip)


def usual(file: FileDiff, strip: int) -> bytes:
    """The diff of a file with the prefixes a/ and b/."""
    if strip == USUAL:
        return file.text
    lines = file.text.split(b"\n")
    head = next((at for at, line in enumerate(lines) if line.startswith(b"@@ ")), len(lines))
    for at in range(head):
        if lines[at].startswith(b"diff --git "):
            lines[at] = _git_line(file, strip, lines[at])
        elif match := _NAMED.match(lines[at]):
            lines[at] = _name_line(match, strip)
    return b"\n".join(lines)


def _git_line(file: FileDiff, strip: int, line: bytes) -> bytes:
    old, new = (
        stripped(file.new if name == NULL else name, strip).encode(errors="surrogateescape")
        for name in (file.old, file.old if file.new == NULL else file.new)
    )
    if not old or not new or re.search(rb'[\s"]', old + new):
        return line  # GNU patch takes the names from the lines --- and +++
    return b"diff --git a/%b b/%b" % (old, new)


def _name_line(match: re.Match[bytes], strip: int) -> bytes:
    kind, quote, name = match.groups()
    if name.startswith(NULL.encode()):
        return match[0]
    prefix = b"a" if kind == b"--- " else b"b"
    return kind + quote + b"/".join([prefix, *name.split(b"/")[strip:]])
