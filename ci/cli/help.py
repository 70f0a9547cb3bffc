# SPDX-License-Identifier: GPL-2.0-or-later
"""Help pages: all commands by what people do, and one command with its options."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence

from blockyard.ci.cli import namespace, options
from blockyard.ci.cli.command import Command, Group, Option
from blockyard.kernel.host.errors import ExitCode

HELP = "what a command does, its options, exit codes and results"
LIST = "the names of all commands"
VERSION = "the version and commit of Blockyard"
VERBOSE = "print each command that is run; -vv: also what guests and QEMU say"
COMPLETION = "print what makes bash, zsh or fish complete commands, options and values"
COMMON = (
    ("-h, --help", HELP),
    ("-l, --list", LIST),
    ("-v, --verbose", VERBOSE),
    ("-V, --version", VERSION),
    ("--print-completion-script SHELL", COMPLETION),
)
ENDS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "the answer is no, or a guest died",
    ExitCode.USAGE: "bad input",
    ExitCode.UNTESTABLE: "no answer: not fetched, not built, disk full",
}
LEAST_COLUMNS, MOST_COLUMNS = 60, 100


def overview(program: str, prefix: str = "") -> str:
    """All commands whose names begin with `prefix`, in groups, an example of each."""
    commands = [one for path, one in namespace.known().items() if path.startswith(prefix)]
    rows = {one: f"{program} {one.examples[0]}" for one in dict.fromkeys(commands)}
    width = max(map(len, rows.values())) + 4
    lines = [
        f"usage: {program} COMMAND [OPTION...] [-- WORDS]",
        "",
        "Builds Linux kernels with block drivers, boots them in QEMU and tests the drivers.",
    ]
    for group in Group:
        if members := [one for one in rows if one.group is group]:
            lines += ["", f"{group.value}:"]
            texts = ((rows[one], one.summary.rstrip(".")) for one in members)
            lines += _columns(texts, width)
    lines += ["", "For every command:", *_columns(COMMON)]
    return "\n".join(lines)


def names(program: str) -> str:
    """The name of each command and its first line, as `--list` prints them."""
    return "\n".join(_columns((path, one.summary) for path, one in namespace.known().items()))


def usage(path: str, program: str) -> str:
    """How a command is typed."""
    one = namespace.known()[path]
    words = [option.metavar for option in one.own_options() if option.positional]
    behind = [f"[-- {one.words}]"] if one.words else []
    return " ".join([program, path, *words, "[OPTION...]", *behind])


def of_command(one: Command, program: str) -> str:
    """The page of a command."""
    own = one.own_options()
    lines = [f"usage: {usage(one.path, program)}", "", one.summary]
    if one.description:
        lines += ["", one.description]
    lines += ["", "Examples:", *(f"  {program} {example}" for example in one.examples)]
    values = [option for option in own if option.positional]
    ordinary = [option for option in own if not option.positional]
    lines += _section("Values", [(option.metavar, option.help) for option in values])
    written = [option for option in ordinary if option.names[0] in options.DEVELOPERS]
    lines += _section("Options", map(_row, [one for one in ordinary if one not in written]))
    lines += _section("Which kernel, and how it is built", map(_row, one.kernel_options()))
    lines += _section("For developers of Blockyard, in a checkout", map(_row, written))
    ends = {int(code): text for code, text in ENDS.items()} | one.ends
    lines += _section("Exit codes", [(str(code), text) for code, text in sorted(ends.items())])
    if one.results:
        lines += ["", "Results:", *_wrapped(one.results, "  ")]
    return "\n".join(lines).replace("./inv", program)


def _section(title: str, rows: Iterable[tuple[str, str | None]]) -> list[str]:
    lines = _columns(rows)
    return ["", f"{title}:", *lines] if lines else []


def _row(option: Option) -> tuple[str, str]:
    """An option as it is typed, and what it does."""
    name = option.names[0]
    flag = f"-{name}" if len(name) == 1 else f"--{name}"
    if option.metavar:
        flag += f"[={option.metavar}]" if option.optional else f" {option.metavar}"
    text = option.help or ""
    if default := default_of(option):
        text += f" (default: {default})"
    return flag, text


def default_of(option: Option) -> str:
    """The value that counts when an option is not given; empty for none that can be named."""
    if option.default not in (None, "", False):
        return str(option.default)
    if option.names[0] in ("kernel", "variant", "toolchain", "compiler"):
        from blockyard.kernel.spec import KernelSpec

        return str(KernelSpec.__dataclass_fields__[option.names[0]].default)
    return ""


def _columns(rows: Iterable[tuple[str, str | None]], width: int = 0) -> list[str]:
    """Rows of two columns; the second is wrapped. width: of the first, else as it needs."""
    pairs = list(rows)
    width = width or min(max((len(left) for left, _ in pairs), default=0), 28) + 4
    lines: list[str] = []
    for left, right in pairs:
        text = _wrapped(right or "", " " * width) or [""]
        head = f"  {left}"
        if len(head) + 2 > width:
            lines += [head, *text]
        else:
            lines += [head.ljust(width) + text[0].lstrip(), *text[1:]]
    return lines


def _wrapped(text: str, indent: str) -> Sequence[str]:
    return textwrap.wrap(
        text,
        width=_terminal_columns(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _terminal_columns() -> int:
    """The width of lines, in letters."""
    try:
        found = os.get_terminal_size().columns
    except OSError:  # not a terminal
        return MOST_COLUMNS
    return min(max(found, LEAST_COLUMNS), MOST_COLUMNS)
