# SPDX-License-Identifier: GPL-2.0-or-later
"""Extracts the errors from the log of a failed build, in their order.

With ``make -j`` the first compiler error may be a hundred lines above make's last line. Logs are
not trusted and can be huge: only the last 8 MiB of a log and the first 1000 characters of a line
are read, and the patterns have no nested repetitions.

These are recognized: errors of clang, gcc, rustc, the assembler, the linkers, objtool, modpost,
Kconfig and make, missing programs, and a lack of memory or disk space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel.host import causes

WINDOW = 8 << 20  # bytes of a log, from its end
LINE_LENGTH = 1000  # characters of a line that are read; error messages are shorter
MAX_LINES = 20  # of errors in a message
MAX_LINES_PER_ERROR = 7
MAX_ERRORS_PER_FILE = 4  # in a message
FULL_ERRORS = 2  # errors that are shown with their context
MAX_ERRORS = 1000  # different errors that are collected
SHOWN_LENGTH = 200  # characters of a line in a message

MISSING = "the toolchain lacks this program, which the build runs"

_PROGRESS = re.compile(
    r"  (?:\[[MR]\] )?[A-Z][A-Z0-9_+-]*(?: \[[MR]\])? |make(?:\[\d+\])?: (?:Enter|Leav)ing "
)
# clang, gcc, rustc's assembler: FILE:LINE:COLUMN: error: ...
_COMPILER = re.compile(r"(\S[^:]*):(\d+):(?:\d+:)? (?:fatal |internal compiler )?(?:error|Error): ")
_NOTE = re.compile(r"\S[^:]*:\d+:\d+: note: ")
_INCLUDED = re.compile(r"(?:In file included|                 ) ?from (\S+):(\d+)[,:]")
_RUST = re.compile(r"error(?:\[E\d+\])?: ")
_RUST_END = re.compile(r"error: (?:aborting due to|could not compile|\d+ )")
_MODPOST = re.compile(r"(?:ERROR|error): (?:modpost: )?")
_KCONFIG = re.compile(r"([^:\s]*/)?Kconfig[^:\s/]*:\d+:(?!\t| ?warning)")
_PROGRAM = re.compile(r"[^\s:]+: (?:fatal )?error: ")  # clang: error: ..., ld.lld: error: ...
_LINKER = re.compile(
    r"[^:]+:.*: undefined reference to |[^\s:]*ld(?:\.\w+)?: (?!warning|.*: in function )"
)
_MAKE = re.compile(r"(?:[^\s:]+:\d+: |make(?:\[\d+\])?: )\*\*\* (?!\[|Waiting|Deleting)")
_MAKE_FAILED = re.compile(r"make(?:\[\d+\])?: \*\*\* \[(.*)\] (?:Error|Terminated|Segm|Bus)")
_NOT_FOUND = re.compile(
    r"[^\s:]*sh: (?:line )?(?:\d+: )?[^\s:]+: (?:command )?not found$"
    r"|make(?:\[\d+\])?: [^\s:*]+: (?:No such file or directory|Permission denied)$"
    r"|[^\s:]*env: .{1,80}: No such file or directory$"
)
_PANIC = re.compile(r"thread '[^']*' (?:\(\d+\) )?panicked at ")
_NOISE = (
    "too many errors emitted, stopping now",
    "linker command failed with exit code",
    "collect2: error: ld returned",
    "warnings being treated as errors",
    "unused command-line arguments",
)
# Beginnings of lines that belong to the error above: source lines, carets, notes, "-->".
_MARKS = ("|", "^", "~", "-->", "= ", "...", ">>> ")
_NUMBERED = re.compile(r"\d+ +\|")


@dataclass
class Problem:
    """One error of a build."""

    lines: list[str]  # the error and its context
    belongs: Callable[[str], bool]  # whether a following line is part of the context
    advice: str = ""  # a line on the cause, if it is always the same
    times: int = 1  # how often the same error occurred, such as one in a header
    key: str = ""  # identifies the error
    at: int = 0  # index of the error itself in `lines`
    file: str = ""  # that the compiler names


def explainer(names: Mapping[str, str]) -> Callable[[Path, int], str]:
    """Return a function for `kernel.host.process.run` that quotes the errors in a build's log.

    names: prefix of paths in the log → prefix that the user knows, such as
    "/mnt/src/" → "/home/me/linux/".
    """

    def explain(log: Path, start: int = 0) -> str:
        return shown(problems(read(log, start)), names)

    return explain


def read(log: Path, start: int = 0) -> Iterator[str]:
    """Yield the lines in the last 8 MiB of a log after offset `start`, cut to LINE_LENGTH."""
    try:
        with open(log, "rb") as file:
            begin = max(start, file.seek(0, 2) - WINDOW, 0)
            file.seek(begin)
            if begin > start:
                file.readline(LINE_LENGTH)  # the rest of a line
            left = WINDOW
            while left > 0 and (line := file.readline(min(left, 1 << 16))):
                left -= len(line)
                yield line[:LINE_LENGTH].decode(errors="replace").rstrip()
    except OSError:
        return


def problems(lines: Iterable[str]) -> list[Problem]:
    """The errors among the lines of a log, in their order and without duplicates."""
    errors: dict[str, Problem] = {}
    failed: list[Problem] = []  # make's error about a recipe, if no other error is recognized
    recent: list[str] = []  # lines that may be the message of a program that failed
    current: Problem | None = None
    included = ""
    for line in lines:
        if not line or _PROGRESS.match(line):
            # with make -j, lines of another program may be among those of an error
            if not line and current and _RUST.match(current.lines[0]):
                current = None
            continue
        if _INCLUDED.match(line):
            included, current = included or line, None
            continue
        if problem := _problem(line):
            if included and _COMPILER.match(line):
                problem.lines.insert(0, included)
                problem.at = 1
            included = ""
            if first := errors.get(problem.key):
                first.times += 1
                current = None
                continue
            if len(errors) < MAX_ERRORS:
                errors[problem.key] = problem
            current = problem
            continue
        if not (_context(line) or ": warning: " in line):
            included = ""
        if current and current.belongs(line):
            if len(current.lines) < MAX_LINES_PER_ERROR and line.strip(" |"):
                current.lines.append(line)
        elif match := _MAKE_FAILED.match(line):
            if not failed:
                failed.append(Problem([*recent[-4:], line], _nothing, key=match[1]))
            current = None
        else:
            current = None
            recent = [*recent[-7:], line]
    return list(errors.values()) or failed


def _nothing(_line: str) -> bool:
    return False


def _context(line: str) -> bool:
    """Whether a line belongs to the error above it."""
    words = line.lstrip()
    indent = len(line) - len(words)
    marked = words.startswith(_MARKS) and (indent or not words.startswith("= "))
    more = indent >= 4 or line[:1] == "\t" or marked or _NUMBERED.match(words)
    return bool(more or _NOTE.match(line))


def _problem(line: str) -> Problem | None:
    """The error that starts in a line; None if there is none."""
    if any(words in line for words in _NOISE) or _RUST_END.match(line):
        return None
    if causes.says_no_space(line):
        return Problem([line], _nothing, key="no space")
    if causes.says_no_memory(line):
        return Problem([line], _nothing, key="no memory")
    if match := _COMPILER.match(line):
        return Problem([line], _context, key=line, file=match[1])
    if _RUST.match(line):
        return Problem([line], _context, key=line)
    if _KCONFIG.match(line):
        return Problem([line], _context, key=line)
    if _NOT_FOUND.match(line):
        return Problem([line], _nothing, MISSING, key=line)
    if _PANIC.match(line):
        return Problem([line], lambda more: not more.startswith("make"), key=line)
    if _MODPOST.match(line) or _PROGRAM.match(line) or _LINKER.match(line) or _MAKE.match(line):
        return Problem([line], _context, key=line)
    return None


def shown(errors: list[Problem], names: Mapping[str, str]) -> str:
    """At most 20 indented lines of errors, and the number of further errors.

    The first errors are shown with their context, the others only with their location. Only a few
    errors of one file are shown, so that they do not hide those of other files.
    """
    lines: list[str] = []
    count = 0
    of_file: Counter[str] = Counter()
    for problem in errors:
        of_file[problem.file] += 1
        if problem.file and of_file[problem.file] > MAX_ERRORS_PER_FILE:
            continue
        more = _lines(problem, names, full=count < FULL_ERRORS)
        if lines and len(lines) + len(more) > MAX_LINES:
            break
        lines += more
        count += 1
    if left := len(errors) - count:
        or_more = " or more" * (len(errors) >= MAX_ERRORS)
        lines.append(f"and {left}{or_more} more error{'s' * (left > 1)}")
    return "\n".join(f"    {line}" for line in lines)


def _lines(problem: Problem, names: Mapping[str, str], *, full: bool) -> list[str]:
    located = any(line.lstrip().startswith("-->") for line in problem.lines[1:2])  # rustc's
    limit = MAX_LINES_PER_ERROR if full else 1 + problem.at + located
    lines = [_named(line, names)[:SHOWN_LENGTH] for line in problem.lines[:limit]]
    if problem.times > 1:
        lines[problem.at] += f" ({problem.times} times)"
    return [*lines, problem.advice] if problem.advice else lines


def _named(line: str, names: Mapping[str, str]) -> str:
    for in_log, of_user in names.items():
        line = line.replace(in_log, of_user)
    return line
