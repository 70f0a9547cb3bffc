# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds splats in a kernel log: the kernel's reports of its own bugs and hangs.

The patterns come from the kernel's sources (lib/bug.c, kernel/panic.c, kernel/locking, kernel/rcu,
mm/kasan, lib/ubsan.c, kernel/hung_task.c, kernel/watchdog.c, arch/x86). They are tried in the order
of the table; the first that matches names the splat.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from blockyard.images.log.kernel_log import without_stamps

LINE_LETTERS = 1024  # characters of a line that are searched; the kernel's are not longer
EXCERPT_LINES = 60

# kind, and the pattern of a line of the log
_PATTERNS = (
    ("panic", r"(?<!end )Kernel panic - not syncing"),
    ("KASAN", r"BUG: KASAN: "),
    ("KCSAN", r"BUG: KCSAN: "),
    ("KFENCE", r"BUG: KFENCE: "),
    ("UBSAN", r"UBSAN: "),
    ("soft lockup", r"BUG: soft lockup"),
    ("hard lockup", r"Watchdog detected hard LOCKUP|NMI watchdog: .*LOCKUP"),
    ("workqueue lockup", r"BUG: workqueue lockup"),
    ("sleeping in atomic context", r"BUG: (?:sleeping function|scheduling while atomic)"),
    (
        "lockdep",
        r"WARNING: (?:possible (?:circular|recursive) locking|inconsistent lock state"
        r"|suspicious RCU usage|bad unlock balance|Nested lock|held lock freed"
        r"|possible irq lock inversion|[A-Za-z/-]+-safe -> [A-Za-z/-]+-unsafe)"
        r"|DEBUG_LOCKS_WARN_ON|INFO: trying to register non-static key"
        r"|INFO: possible (?:circular|recursive) locking",
    ),
    ("hung task", r"INFO: task .+ blocked (?:for more than|in I/O wait)"),
    ("RCU stall", r"rcu.*(?:detected stalls|self-detected stall|detected expedited stalls)"),
    ("Rust panic", r"rust_kernel: panicked at "),
    ("BUG", r"kernel BUG at |(?<![A-Z])BUG: "),
    ("WARNING", r"^WARNING: "),
    ("general protection", r"general protection fault|Oops: general protection"),
    ("Oops", r"Oops: |Unable to handle kernel|unable to handle kernel"),
    ("CPU exception", r"(?:divide error|invalid opcode|double fault|stack segment|int3): "),
    (
        "memory corruption",
        r"(?:list_(?:add|del)|slab) corruption|refcount_t: |Bad page state"
        r"|^BUG \S+ \((?:Not tainted|Tainted)",
    ),
    ("kmemleak", r"kmemleak: \d+ new suspected memory leaks"),
    ("allocation failure", r"page allocation failure"),
    # reports without a keyword of their own: kobject, sysfs and others only dump a stack
    ("stack dump", r"Call Trace:"),
)
_ANY = re.compile("|".join(f"(?P<p{i}>{pattern})" for i, (_, pattern) in enumerate(_PATTERNS)))

# Lines written by our programs, and kernel messages about crashed user programs.
_NOT_THE_KERNEL = re.compile(r"blockyard|traps: ")

# An injected failure (lib/fault-inject.c), and how many lines there are before its stack.
_INJECTED = "FAULT_INJECTION: forcing a failure"
_INJECTED_HEAD = 6

# A report ends at its end mark, before the next report, or after EXCERPT_LINES.
_STACK_END = re.compile(r"---\[ end (?:trace|Kernel panic)|</TASK>")
_RULE = re.compile(r"^={20,}$")
_BEGIN = re.compile(r"-+\[ cut here \]-+")
_RULED = frozenset({"KASAN", "KCSAN", "KFENCE"})  # their reports go on to a line of "="


@dataclass(frozen=True)
class Splat:
    """One report of the kernel about a bug or a hang in it."""

    kind: str  # of _PATTERNS
    line: str  # the line that matched, without its time stamp
    excerpt: str  # the report, with time stamps

    def __str__(self) -> str:
        return f"{self.kind}: {self.line}"


def excerpts(splats: Iterable[Splat]) -> str:
    """The reports' lines of the kernel log, with an empty line between two reports."""
    return "\n\n".join(splat.excerpt for splat in splats)


def find(log: str) -> list[Splat]:
    """The splats in a part of a kernel log, in order. Lines within a report do not count again."""
    lines = [line[:LINE_LETTERS] for line in log.splitlines()]
    splats: list[Splat] = []
    at = 0
    while at < len(lines):
        plain = without_stamps(lines[at])
        if _INJECTED in plain:
            at = _injected_end(lines, at)
            continue
        match = None if _NOT_THE_KERNEL.match(plain) else _ANY.search(plain)
        if match is None or match.lastgroup is None:
            at += 1
            continue
        kind = _PATTERNS[int(match.lastgroup[1:])][0]
        end = _report_end(lines, at, kind)
        splats.append(Splat(kind, plain, "\n".join(lines[at:end])))
        at = end
    return splats


def _injected_end(lines: list[str], start: int) -> int:
    """The line after an injected failure's report, which has a stack if `verbose` is above 1."""
    for at in range(start + 1, min(len(lines), start + _INJECTED_HEAD)):
        if match := _ANY.search(without_stamps(lines[at])):
            return _report_end(lines, at, "stack dump") if match[0] == "Call Trace:" else start + 1
    return start + 1


def _report_end(lines: list[str], start: int, kind: str) -> int:
    end_mark = _RULE if kind in _RULED else _STACK_END
    stop = min(len(lines), start + EXCERPT_LINES)
    traced = "Call Trace:" in lines[start]
    for at in range(start + 1, stop):
        plain = without_stamps(lines[at])
        if end_mark.search(plain):
            return at + 1
        # a Rust panic is printed first, then the BUG that it ends in
        if _BEGIN.search(plain) and kind != "Rust panic":
            return at if traced else start + 1
        traced = traced or "Call Trace:" in plain
    # no stack follows: a report of one line
    return stop if traced else start + 1
