# SPDX-License-Identifier: GPL-2.0-or-later
"""Extracts the unified diffs from a text: a mail, a patch file, the output of git.

GNU patch guesses: it takes an indented example in a commit message for a patch, and ignores lines
of a hunk beyond the count in its header. So the diffs are extracted here, hunk by hunk with the
counts of their headers, and GNU patch gets nothing else. One pass, in linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

NULL = "/dev/null"
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
# git's extended headers, between "diff --git" and the hunks; `index` alone changes nothing.
_EXTENDED = re.compile(
    rb"(old mode|new mode|deleted file mode|new file mode|copy from|copy to|rename from|rename to"
    rb"|similarity index|dissimilarity index|index) (.*)"
)
_INTERDIFF = re.compile(
    rb"\s{0,4}(?:inter-?diff|range-?diff|incremental diff)\b(?:[^\n]{0,80}:|)\s*", re.IGNORECASE
)
_DIFFSTAT = re.compile(rb" \d{1,6} files? changed\b")
_SUBMODULE = b"160000"
_BLANKS = 3  # blank context lines that editors and mail programs may cut off at the end of a text
AS_SENT = "get the original from the list's archive (b4 am, or the raw mail)"
_BY_GIT = "apply it with git am in a repository, and use --kernel REPOSITORY#BRANCH"
# git's quote.c
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True)
class Hunk:
    """The header of a hunk."""

    line: int  # first line in the old file
    old: int  # number of its lines in the old file: context and removed ones
    new: int  # number of its lines in the new file: context and added ones


@dataclass(frozen=True)
class FileDiff:
    """The changes of a file."""

    old: str  # its old name as in the diff, with its prefix; NULL for a new file
    new: str  # its new name; NULL for a removed file
    text: bytes = field(repr=False)
    line: int  # line of the text at which it begins, from 1
    before: bytes = b""  # abbreviated id of the old blob; empty when there is no `index` line
    after: bytes = b""  # of the new blob
    renames: bool = False  # or copies
    copies: bool = False
    mode: str = ""  # its new mode; empty: unchanged
    hunks: tuple[Hunk, ...] = ()


@dataclass(frozen=True)
class Problem:
    """Why a diff cannot be applied."""

    line: int
    what: str
    hint: str


@dataclass(frozen=True)
class Scan:
    """All diffs of a text."""

    files: tuple[FileDiff, ...] = ()
    interdiffs: int = 0  # files in an interdiff or range-diff, which do not belong to the patch
    problem: Problem | None = None  # the first problem; the text after it was not read

    @property
    def text(self) -> bytes:
        """The text of the diffs, without anything between them."""
        return b"".join(file.text for file in self.files)


def scan(text: bytes) -> Scan:
    """The diffs of a text, in order; a damaged one is in `Scan.problem`."""
    return _Scanner(text.split(b"\n")).scan()


class _Damaged(Exception):
    def __init__(self, line: int, what: str, hint: str = AS_SENT) -> None:
        self.problem = Problem(line + 1, what, hint)


class _Scanner:
    def __init__(self, lines: list[bytes]) -> None:
        if lines and not lines[-1]:
            lines.pop()  # after the last newline
        self.lines = lines
        self.files: list[FileDiff] = []
        self.interdiffs = 0
        self.in_interdiff = False

    def scan(self) -> Scan:
        at = 0
        try:
            while at < len(self.lines):
                at = self._step(at)
        except _Damaged as damaged:
            return Scan(tuple(self.files), self.interdiffs, damaged.problem)
        return Scan(tuple(self.files), self.interdiffs)

    def _line(self, at: int) -> bytes:
        return self.lines[at] if at < len(self.lines) else b""

    def _step(self, at: int) -> int:
        """Reads a diff, or a line outside of diffs; returns the index of the next line."""
        line = self.lines[at]
        if line.startswith(b"diff --git "):
            return self._git(at)
        if line.startswith(b"--- ") and self._line(at + 1).startswith(b"+++ "):
            return self._plain(at)
        if line.startswith((b"diff --cc ", b"diff --combined ")):
            raise _Damaged(at, "this is the combined diff of a merge", _BY_GIT)
        if line.startswith(b"*** ") and self._line(at + 2).startswith(b"*" * 15):
            raise _Damaged(at, "this is a context diff", "make a unified diff: diff -u")
        if self.in_interdiff and not self.files and _DIFFSTAT.match(line):
            self.in_interdiff = False  # the patch itself follows its diffstat
        elif _INTERDIFF.fullmatch(line):
            self.in_interdiff = bool(self.files) or self._diff_follows(at + 1)
        return at + 1

    def _diff_follows(self, at: int) -> bool:
        while at < len(self.lines) and not self.lines[at].strip():
            at += 1
        return self._line(at).startswith((b"diff ", b"--- "))

    def _git(self, begin: int) -> int:
        at = begin + 1
        extended: dict[bytes, bytes] = {}
        while match := _EXTENDED.fullmatch(self._line(at)):
            extended[match[1]] = match[2]
            at += 1
        line = self._line(at)
        old, new = _git_names(self.lines[begin][len(b"diff --git ") :])
        hunks: list[Hunk] = []
        if line == b"GIT binary patch" or line.startswith(b"Binary files "):
            raise _Damaged(begin, f"GNU patch cannot change the binary {new or 'file'}", _BY_GIT)
        modes = [value for name, value in extended.items() if b"mode" in name or name == b"index"]
        if any(value.endswith(_SUBMODULE) for value in modes):
            raise _Damaged(begin, f"{new or 'a file'} is a git submodule", _BY_GIT)
        if line.startswith(b"--- ") and self._line(at + 1).startswith(b"+++ "):
            old, new = _name(line), _name(self.lines[at + 1])
            at, hunks = self._hunks(at + 2, new if new != NULL else old)
        elif not extended:
            return begin + 1  # text that mentions a diff
        elif set(extended) == {b"index"}:
            raise _Damaged(begin, f"the diff of {new or 'a file'} has no hunk")
        elif b"new file mode" in extended:
            old = NULL
        elif b"deleted file mode" in extended:
            new = NULL
        before, _, after = extended.get(b"index", b"").split(b" ")[0].partition(b"..")
        copies = b"copy from" in extended
        self._add(
            FileDiff(
                old,
                new,
                self._text(begin, at),
                begin + 1,
                before,
                after,
                copies or b"rename from" in extended,
                copies,
                extended.get(b"new mode", b"").decode(errors="replace").strip(),
                tuple(hunks),
            )
        )
        return at

    def _plain(self, begin: int) -> int:
        old, new = _name(self.lines[begin]), _name(self.lines[begin + 1])
        at, hunks = self._hunks(begin + 2, new if new != NULL else old)
        self._add(FileDiff(old, new, self._text(begin, at), begin + 1, hunks=tuple(hunks)))
        return at

    def _add(self, file: FileDiff) -> None:
        if self.in_interdiff:
            self.interdiffs += 1
        else:
            self.files.append(file)

    def _text(self, begin: int, end: int) -> bytes:
        return b"".join(line + b"\n" for line in self.lines[begin:end])

    def _hunks(self, at: int, name: str) -> tuple[int, list[Hunk]]:
        """Reads the hunks of a file, at least one; returns the index of the next line."""
        hunks = []
        if not _HUNK.match(self._line(at)):
            raise _Damaged(at, f"the diff of {name} has no hunk")
        while match := _HUNK.match(self._line(at)):
            hunk = Hunk(*(1 if count is None else int(count) for count in match.groups()))
            at = self._hunk(at, hunk.old, hunk.new)
            hunks.append(hunk)
        line = self._line(at)
        header = line.startswith(b"--- ") and self._line(at + 1).startswith(b"+++ ")
        if not header and re.match(rb"\+|-[^-]", line) and line.rstrip() != b"--":
            raise _Damaged(at, f"a hunk of {name} has more lines than its header says")
        return at, hunks

    def _hunk(self, header: int, old: int, new: int) -> int:
        at = header + 1
        while old or new:
            if at == len(self.lines) and old == new <= _BLANKS:
                self.lines += [b" "] * old
            kind = self.lines[at][:1] if at < len(self.lines) else b"end"
            if kind in (b" ", b"", b"-"):
                old -= 1
            if kind in (b" ", b"", b"+"):
                new -= 1
            if kind not in (b" ", b"", b"-", b"+", b"\\") or old < 0 or new < 0:
                raise _Damaged(
                    at, f"the hunk of line {header + 1} is cut, or a mail program changed its lines"
                )
            at += 1
        while self._line(at).startswith(b"\\"):  # "\ No newline at end of file"
            at += 1
        return at


def _name(line: bytes) -> str:
    """The file name in a line ``---`` or ``+++``; diff -u adds a tab and a time."""
    name = line[4:].rstrip(b"\r")
    return _unquoted(name if name.startswith(b'"') else name.split(b"\t")[0].rstrip())


def _git_names(names: bytes) -> tuple[str, str]:
    """Both names in a line ``diff --git``; empty when the boundary between them is unclear."""
    middle = len(names) // 2
    if names[middle : middle + 1] == b" ":  # without a rename both have the same length
        return _unquoted(names[:middle]), _unquoted(names[middle + 1 :])
    words = names.split(b" ")
    return (_unquoted(words[0]), _unquoted(words[1])) if len(words) == 2 else ("", "")


def _unquoted(name: bytes) -> str:
    """A file name, without git's quoting of special characters."""
    text = name.decode(errors="surrogateescape")
    if not text.startswith('"'):
        return text

    def character(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code, 8)) if len(code) == 3 else _ESCAPES.get(code, code)

    plain = re.sub(r"\\([0-3][0-7]{2}|.)", character, text.rstrip().strip('"'))
    with_bytes = plain.encode("latin-1", errors="replace")
    return with_bytes.decode(errors="surrogateescape")
