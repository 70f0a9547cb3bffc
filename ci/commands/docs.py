# SPDX-License-Identifier: GPL-2.0-or-later
"""Generated parts of README.md and docs/: tables, transcripts, the picture docs/run.svg.

Such a part is between two comments, and the first one names the command:

    <!-- made by: ./inv dev.docs --table topologies -->
    ...
    <!-- end -->

``./inv dev.docs --table NAME`` prints one of `TABLES`, made from the code and its data files.
``./inv dev.docs`` updates all tables; `./inv check` fails if one is out of date. Any other command
is a transcript. It may boot guests, so only ``./inv dev.docs --run`` runs it again.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blockyard.ci.report import markdown
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, unknown
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import PROJECT

MADE = re.compile(
    r"^<!-- made by: \./inv (?P<command>.+?) -->\n(?P<body>.*?)^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)
PICTURE = PROJECT / "docs" / "run.svg"
PICTURE_COMMAND = "test"
PICTURE_COLUMNS = 112
LAST_TESTS = 6  # progress lines in the picture


@dataclass(frozen=True)
class Part:
    """A generated part of a page."""

    path: Path
    command: str  # the words after ./inv
    body: str  # its current text in the page

    @property
    def table(self) -> str:
        """The name in `TABLES`; empty for a transcript."""
        words = shlex.split(self.command)
        return words[-1] if words[:2] == ["dev.docs", "--table"] else ""


def pages() -> list[Path]:
    """All Markdown files of the top folder and of docs/."""
    return [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").glob("*.md"))]


def parts(path: Path) -> Iterator[Part]:
    """The generated parts of a page, in order."""
    for match in MADE.finditer(path.read_text()):
        yield Part(path, match["command"], match["body"])


def stale() -> list[str]:
    """Parts that are out of date: ``page: table``, or the path of the run record's schema."""
    from blockyard.ci.report import record_schema

    outdated = []
    if record_schema.FILE.read_text() != record_schema.text():
        outdated.append(str(record_schema.FILE.relative_to(PROJECT)))
    return outdated + [
        f"{part.path.relative_to(PROJECT)}: {part.table}"
        for path in pages()
        for part in parts(path)
        if part.table and part.body != table(part.table)
    ]


def table(name: str) -> str:
    """One of `TABLES` as Markdown, ending in a newline; raises UsageError for an unknown name."""
    if name not in TABLES:
        raise unknown("table", name, TABLES)
    return "\n".join(TABLES[name]()) + "\n"


def update(*, run: bool, pattern: str = "") -> None:
    """Updates the tables of all pages; with `run` also transcripts and the picture.

    pattern: update only transcripts whose command contains it.
    """
    from blockyard.ci.report import record_schema

    for path in pages():
        before = path.read_text()
        after = MADE.sub(lambda match: _regenerated(match, run=run, pattern=pattern), before)
        if after != before:
            store.write(path, after.encode())
            note(f"updated {path.relative_to(PROJECT)}")
    schema = record_schema.text()
    if record_schema.FILE.read_text() != schema:
        store.write(record_schema.FILE, schema.encode())
        note(f"updated {record_schema.FILE.relative_to(PROJECT)}")
    if run and pattern in PICTURE_COMMAND:
        store.write(PICTURE, picture(PICTURE_COMMAND).encode())
        note(f"updated {PICTURE.relative_to(PROJECT)}")


def _regenerated(match: re.Match[str], *, run: bool, pattern: str) -> str:
    part = Part(Path(), match["command"], match["body"])
    if part.table:
        body = table(part.table)
    elif run and pattern in part.command:
        body = transcript(part.command)
    else:
        return match[0]
    return f"<!-- made by: ./inv {part.command} -->\n{body}<!-- end -->"


def transcript(command: str) -> str:
    """Runs `./inv COMMAND`; returns Markdown: command, output, date, machine and time taken."""
    started = time.monotonic()
    stdout = "\n".join(line.rstrip() for line in _run(command).rstrip().splitlines())
    seconds = time.monotonic() - started
    return f"```\n$ ./inv {command}\n{stdout}\n```\n\n{_circumstances(seconds)}\n"


def _run(command: str, **environment: str) -> str:
    """The standard output of `./inv COMMAND`; raises Failure when its exit code is not 0."""
    note(f"$ ./inv {command}")
    done = subprocess.run(
        [str(PROJECT / "inv"), *shlex.split(command)],
        cwd=PROJECT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise Failure(f"./inv {command} exited with {done.returncode}; the page was not changed")
    # readers have another path to their checkout
    return done.stdout.replace(f"{PROJECT}/", "")


def _circumstances(seconds: float) -> str:
    from blockyard.images.machine import accelerator
    from blockyard.images.machine.qemu import PACKAGE
    from blockyard.kernel.host.debian import ready_tool_root

    tools = ready_tool_root()
    verdict = accelerator.known(tools.versions[PACKAGE] if tools else "")
    kind = "KVM" if verdict and verdict.works else "without KVM"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    cpus = os.cpu_count() or 1
    return f"*{day}, {cpus} CPUs, {kind}, warm cache: {seconds:.0f} s.*"


def picture(command: str) -> str:
    """An SVG of the last lines of `./inv COMMAND` on a terminal."""
    from rich.console import Console
    from rich.text import Text

    stdout = _run(command, FORCE_COLOR="1", COLUMNS=str(PICTURE_COLUMNS))
    lines = stdout.rstrip("\n").splitlines()
    shown = [f"$ ./inv {command}", "...", *lines[_end_of(lines) :]]
    with open(os.devnull, "w") as null:
        console = Console(
            record=True, width=PICTURE_COLUMNS, file=null, force_terminal=True, highlight=False
        )
        for line in shown:
            console.print(Text.from_ansi(line), soft_wrap=False)
        return console.export_svg(title=f"./inv {command}", code_format=SVG, unique_id="blockyard")


def _end_of(lines: list[str]) -> int:
    """Index of the line where the last table starts; without a table, of the last lines."""
    starts = [
        index for index, line in enumerate(lines) if re.match(r"\W*(\x1b\[[\d;]*m)*\W*driver", line)
    ]
    return starts[-1] if starts else max(0, len(lines) - LAST_TESTS)


# rich's default format loads a font from a server, which pages that show the picture forbid
SVG = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def _suites() -> list[str]:
    from blockyard.ci.run import selection

    about = tomllib.loads((selection.SUITES / "about.toml").read_text())
    rows = [(f"`{name}`", about[name]) for name in selection.suites()]
    return markdown.simple(["suite", "what it tests"], rows)


def _topologies() -> list[str]:
    files = sorted((PROJECT / "images" / "topologies").glob("*.toml"), key=_default_first)
    rows = [(f"`{file.stem}`", tomllib.loads(file.read_text())["about"]) for file in files]
    return markdown.simple(["name", "what the guest has"], rows)


def _default_first(file: Path) -> tuple[bool, str]:
    return file.stem != "default", file.stem


def _variants() -> list[str]:
    folder = PROJECT / "kernel" / "fragments" / "variants"
    rows = [("`plain`", "What the drivers and the suites need, and nothing else.")]
    for path in sorted(folder.glob("*.config")):
        lines = path.read_text().splitlines()[1:]
        words = []
        for line in lines:
            if not line.startswith("# "):
                break
            words.append(line[2:])
        sentence = re.split(r"(?<=\.) (?=[A-Z])", " ".join(words))[0]
        rows.append((f"`{path.stem}`", sentence))
    return markdown.simple(["variant", "what it adds"], rows)


def _exit_codes() -> list[str]:
    from blockyard.kernel.host.errors import EXIT_CODES

    rows = [(str(int(code)), meaning) for code, meaning in EXIT_CODES.items()]
    return markdown.simple(["code", "means"], rows)


def _packages() -> list[str]:
    """Each package, with the first paragraph of its docstring."""
    import ast

    rows = []
    for file in sorted(_packages_files(), key=lambda file: file.parent):
        docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
        summary = " ".join(docstring.partition("\n\n")[0].split())
        folder = file.parent.relative_to(PROJECT)
        if summary:
            rows.append((f"`{folder}/`", summary))
    return markdown.simple(["folder", "what it does"], rows)


def _packages_files() -> list[Path]:
    folders = ("kernel", "images", "modules", "tests", "ci")
    own = {PROJECT / "tests" / name for name in ("unit", "integration", "hostile", "properties")}
    return [
        file
        for folder in folders
        for file in (PROJECT / folder).rglob("__init__.py")
        if not own & {file.parent, *file.parents}
    ]


def _commands() -> list[str]:
    import tasks

    lines: list[str] = []
    for name in sorted(tasks.namespace.task_names):
        task = tasks.namespace[name]
        words = (task.__doc__ or "").strip().splitlines()
        text = "\n".join(line.strip() for line in words)
        lines += [f"## {name}", "", text, ""]
        arguments = task.get_arguments()
        if arguments:
            rows = [_option(argument) for argument in arguments]
            lines += [*markdown.simple(["option", "default", "meaning"], rows), ""]
    return lines[:-1]


def _option(argument: object) -> tuple[str, str, str]:
    from invoke.parser.argument import Argument

    assert isinstance(argument, Argument)
    names = sorted((name.replace("_", "-") for name in argument.names), key=len, reverse=True)
    flags = ", ".join(f"`--{name}`" if len(name) > 1 else f"`-{name}`" for name in names)
    if argument.positional:
        flags = f"`{names[0].upper()}`"
    default = "" if argument.default in (None, "", False, []) else f"`{argument.default}`"
    return flags, default, argument.help or ""


def _record() -> list[str]:
    """A table for each type of the run record, the run itself first."""
    from blockyard.ci.report import record_schema

    lines: list[str] = []
    tables = record_schema.types()
    for name in sorted(tables, key=lambda name: (name != "Run", name)):
        lines += [f"### {name}", "", tables[name].about, "", *tables[name].lines, ""]
    return lines[:-1]


TABLES: dict[str, Callable[[], list[str]]] = {
    "suites": _suites,
    "topologies": _topologies,
    "variants": _variants,
    "exit-codes": _exit_codes,
    "packages": _packages,
    "commands": _commands,
    "run-record": _record,
}
