# SPDX-License-Identifier: GPL-2.0-or-later
"""Help pages: an overview of all commands, and a page for each command."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence

from blockyard.ci.cli import namespace, options
from blockyard.ci.cli.command import Command, Group, Option
from blockyard.kernel.host.errors import ExitCode

HELP = "show what a command does, its options, exit codes and results"
LIST = "list all commands"
VERSION = "show the version and commit of Blockyard"
VERBOSE = "print each program that is run; -vv: also console and QEMU monitor traffic"
COMPLETION = "print the tab completion script for bash, zsh or fish"
COMMON = (
    ("-h, --help", HELP),
    ("-l, --list", LIST),
    ("-v, --verbose", VERBOSE),
    ("-V, --version", VERSION),
    ("--print-completion-script SHELL", COMPLETION),
)
ENDS = {
    ExitCode.OK: "success",
    ExitCode.FAILED: "the answer is no, or a guest died",
    ExitCode.USAGE: "bad input",
    ExitCode.UNTESTABLE: "no answer: a download or build failed, or the disk is full",
}
LEAST_COLUMNS, MOST_COLUMNS = 60, 100


def overview(program: str, prefix: str = "") -> str:
    """Commands whose names start with `prefix`, by group, each with an example."""
    selected = [command for path, command in namespace.known().items() if path.startswith(prefix)]
    rows = {command: f"{program} {command.examples[0]}" for command in dict.fromkeys(selected)}
    width = max(map(len, rows.values())) + 4
    lines = [
        f"usage: {program} COMMAND [OPTION...] [-- WORDS]",
        "",
        "Builds Linux kernels with block drivers, boots them in QEMU and tests the drivers.",
    ]
    for group in Group:
        if members := [command for command in rows if command.group is group]:
            lines += ["", f"{group.value}:"]
            texts = ((rows[command], command.summary.rstrip(".")) for command in members)
            lines += _columns(texts, width)
    lines += ["", "For every command:", *_columns(COMMON)]
    return "\n".join(lines)


def names(program: str) -> str:
    """Output of `--list`: each command's name and summary."""
    return "\n".join(
        _columns((path, command.summary) for path, command in namespace.known().items())
    )


def usage(path: str, program: str) -> str:
    """A command's usage line, such as ``./inv init DIR [OPTION...]``."""
    command = namespace.known()[path]
    words = [option.metavar for option in command.own_options() if option.positional]
    behind = [f"[-- {command.words}]"] if command.words else []
    return " ".join([program, path, *words, "[OPTION...]", *behind])


def of_command(command: Command, program: str) -> str:
    """Output of `--help` for one command."""
    own_options = command.own_options()
    lines = [f"usage: {usage(command.path, program)}", "", command.summary]
    if command.description:
        lines += ["", command.description]
    lines += ["", "Examples:", *(f"  {program} {example}" for example in command.examples)]
    values = [option for option in own_options if option.positional]
    ordinary = [option for option in own_options if not option.positional]
    lines += _section("Values", [(option.metavar, option.help) for option in values])
    developers = [option for option in ordinary if option.names[0] in options.DEVELOPERS]
    lines += _section(
        "Options", map(_row, [command for command in ordinary if command not in developers])
    )
    lines += _section("Which kernel, and how it is built", map(_row, command.kernel_options()))
    lines += _section("For developers of Blockyard, in a checkout", map(_row, developers))
    ends = {int(code): text for code, text in ENDS.items()} | command.ends
    lines += _section("Exit codes", [(str(code), text) for code, text in sorted(ends.items())])
    if command.results:
        lines += ["", "Results:", *_wrapped(command.results, "  ")]
    return "\n".join(lines).replace("./inv", program)


def _section(title: str, rows: Iterable[tuple[str, str | None]]) -> list[str]:
    lines = _columns(rows)
    return ["", f"{title}:", *lines] if lines else []


def _row(option: Option) -> tuple[str, str]:
    """An option with the name of its value, and its help text."""
    name = option.names[0]
    flag = f"-{name}" if len(name) == 1 else f"--{name}"
    if option.metavar:
        flag += f"[={option.metavar}]" if option.optional else f" {option.metavar}"
    text = option.help or ""
    if "default" not in text and (default := default_of(option)):
        text += f" (default: {default})"
    return flag, text


def default_of(option: Option) -> str:
    """The default of an option as text; empty if it has none to show."""
    if option.default not in (None, "", False):
        return str(option.default)
    if option.names[0] in ("kernel", "variant", "toolchain", "compiler"):
        from blockyard.kernel.spec import KernelSpec

        return str(KernelSpec.__dataclass_fields__[option.names[0]].default)
    return ""


def _columns(rows: Iterable[tuple[str, str | None]], width: int = 0) -> list[str]:
    """Lines of two columns; the second is wrapped. width: of the first; 0: computed."""
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
    """Width of help pages, in characters."""
    try:
        columns = os.get_terminal_size().columns
    except OSError:  # not a terminal
        return MOST_COLUMNS
    return min(max(columns, LEAST_COLUMNS), MOST_COLUMNS)
