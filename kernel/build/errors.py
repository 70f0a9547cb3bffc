# SPDX-License-Identifier: GPL-2.0-or-later
"""From the log of a build that failed to its errors, the first one first.

With ``make -j`` the first error of a compiler stands a hundred lines above make's last words. Logs
are not trusted, and can be huge: the last 8 MiB of a log are looked at, a line counts with its
first 1000 characters, and each line is matched by patterns without nested repetitions.

What is recognized: errors of clang, gcc, rustc, the assembler, the linkers, objtool and modpost, of
Kconfig and make, programs that are missing, and a machine without memory or disk space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel.host import causes

WINDOW = 8 << 20  # bytes of a log, from its end
LINE_LENGTH = 1000  # characters of a line that count; longer ones are no errors' own
MOST_LINES = 20  # of errors in a message
MOST_PER_ERROR = 7
MOST_PER_FILE = 4
WHOLE = 2  # errors that are shown with what belongs to them
MOST_KEPT = 1000  # errors that are told apart; more are counted
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
# What belongs to an error above it, without its indentation: source lines, carets, notes, "-->".
_MARKS = ("|", "^", "~", "-->", "= ", "...", ">>> ")
_NUMBERED = re.compile(r"\d+ +\|")


@dataclass
class Problem:
    """One error of a build."""

    lines: list[str]  # the error and what belongs to it
    belongs: Callable[[str], bool]  # whether a line behind it does, too
    advice: str = ""  # what to do about it, where that does not depend on the work
    times: int = 1  # how often the same error came, as one of a header does
    key: str = ""  # errors of the same key are one
    at: int = 0  # which of the lines is the error itself
    file: str = ""  # that a compiler names


def explainer(names: Mapping[str, str]) -> Callable[[Path, int], str]:
    """What `kernel.host.process.run` takes to quote the errors of a build.

    names: what stands at the beginning of a path in the log → what a user knows it by, such as
    "/mnt/src/" → "/home/me/linux/".
    """

    def explain(log: Path, start: int = 0) -> str:
        return shown(problems(read(log, start)), names)

    return explain


def read(log: Path, start: int = 0) -> Iterator[str]:
    """The lines of a log from its last 8 MiB, each cut to a length that errors have."""
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
    """The errors among the lines of a log in their order, each once."""
    found: dict[str, Problem] = {}
    failed: list[Problem] = []  # what make says of a recipe that failed, when nothing else did
    recent: list[str] = []  # lines that may be a program's own words of its failure
    current: Problem | None = None
    included = ""
    for line in lines:
        if not line or _PROGRESS.match(line):
            # make -j: another compiler's line may stand among those of an error
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
            if first := found.get(problem.key):
                first.times += 1
                current = None
                continue
            if len(found) < MOST_KEPT:
                found[problem.key] = problem
            current = problem
            continue
        if not (_context(line) or ": warning: " in line):
            included = ""
        if current and current.belongs(line):
            if len(current.lines) < MOST_PER_ERROR and line.strip(" |"):
                current.lines.append(line)
        elif match := _MAKE_FAILED.match(line):
            if not failed:
                failed.append(Problem([*recent[-4:], line], _nothing, key=match[1]))
            current = None
        else:
            current = None
            recent = [*recent[-7:], line]
    return list(found.values()) or failed


def _nothing(_line: str) -> bool:
    return False


def _context(line: str) -> bool:
    words = line.lstrip()
    indent = len(line) - len(words)
    marked = words.startswith(_MARKS) and (indent or not words.startswith("= "))
    more = indent >= 4 or line[:1] == "\t" or marked or _NUMBERED.match(words)
    return bool(more or _NOTE.match(line))


def _problem(line: str) -> Problem | None:
    """The error that a line begins; None for any other line."""
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


def shown(found: list[Problem], names: Mapping[str, str]) -> str:
    """At most 20 indented lines of errors, and how many more there are.

    The first errors come with what belongs to them, those behind with where they are. Of one file
    a few are shown, so that it does not hide the others.
    """
    lines: list[str] = []
    told = 0
    of_file: Counter[str] = Counter()
    for problem in found:
        of_file[problem.file] += 1
        if problem.file and of_file[problem.file] > MOST_PER_FILE:
            continue
        mine = _lines(problem, names, whole=told < WHOLE)
        if lines and len(lines) + len(mine) > MOST_LINES:
            break
        lines += mine
        told += 1
    if left := len(found) - told:
        most_kept = " or more" * (len(found) >= MOST_KEPT)
        lines.append(f"and {left}{most_kept} more error{'s' * (left > 1)}")
    return "\n".join(f"    {line}" for line in lines)


def _lines(problem: Problem, names: Mapping[str, str], *, whole: bool) -> list[str]:
    located = any(line.lstrip().startswith("-->") for line in problem.lines[1:2])  # rustc's
    most = MOST_PER_ERROR if whole else 1 + problem.at + located
    lines = [_named(line, names)[:SHOWN_LENGTH] for line in problem.lines[:most]]
    if problem.times > 1:
        lines[problem.at] += f" ({problem.times} times)"
    return [*lines, problem.advice] if problem.advice else lines


def _named(line: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        line = line.replace(ours, theirs)
    return line
