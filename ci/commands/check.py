# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv check` runs linters and tests, one program after the other; `./inv dev.graph`."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

from blockyard.kernel.host import environment
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import GRACE_S, reaped, start
from blockyard.kernel.host.settings import PROJECT

BREAKING = "tests/integration/test_reliability.py"  # tests that break their guests
NOTHING_MATCHED = 5  # pytest's exit code
SKIPPED = ("blockyard", "results")  # folders: links to the others, and output


def run(*, unit: bool, faults: bool, hostile: bool, k: str) -> list[str]:
    """Runs the checks, with their output on stdout; returns the commands that failed.

    unit: skip tests that need guests. faults, hostile: run only these, in full. k: pytest's -k.
    """
    failed = []
    for command in [*_linters(), *_tests(unit=unit, faults=faults, hostile=hostile, k=k)]:
        shown = shlex.join([Path(command[0]).name, *command[1:]]).removeprefix("python -m ")
        print(f"$ {shown}", flush=True)
        child = start(command, cwd=PROJECT, env=environment.of_the_checkout())
        with reaped(child, GRACE_S, signal.SIGINT) as process:
            code = process.wait()
        if code not in (0, NOTHING_MATCHED if k else 0):
            failed.append(shown if len(shown) < 80 else shown.partition(" ")[0])
    return failed


def draw_imports(checkout: str, output: str) -> None:
    """Writes the import graph of a checkout (empty: this one) as an SVG; see import_graph.

    Raises Failure when the graph cannot be drawn.
    """
    program = Path(__file__).with_name("import_graph.py")
    # in a process of its own: another checkout's packages have the same names
    argv = [sys.executable, "-I", str(program), checkout or str(PROJECT), output]
    with reaped(start(argv, env=environment.of_the_checkout()), GRACE_S) as process:
        if process.wait():
            raise Failure(f"cannot draw the imports of {checkout or PROJECT}")


def shell_files() -> list[Path]:
    """All shell scripts of the checkout, found by suffix or `#!` line."""
    scripts = []
    for top in sorted(PROJECT.iterdir()):
        if top.name in SKIPPED or (top.name.startswith(".") and top.name != ".ci"):
            continue
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        scripts += [path for path in files if path.is_file() and _is_shell(path)]
    return scripts


def _is_shell(path: Path) -> bool:
    if path.suffix:
        return path.suffix in (".bash", ".sh")
    with open(path, "rb") as file:
        return re.match(rb"#!.*[/ ](ba)?sh\b", file.readline(100)) is not None


def _linters() -> list[list[str]]:
    python = [sys.executable, "-m"]
    programs = Path(sys.executable).parent
    shell = [str(path.relative_to(PROJECT)) for path in shell_files()]
    commits = [["ci/hooks/commits"]] if (PROJECT / ".git").exists() and shutil.which("git") else []
    return [
        [*python, "ruff", "check"],
        [*python, "ruff", "format", "--check"],
        [*python, "mypy"],
        # without a cache: the graph takes 0.3 s
        [str(programs / "lint-imports"), "--no-logo", "--no-cache"],
        [str(programs / "shellcheck"), *shell],
        *commits,
    ]


def _tests(*, unit: bool, faults: bool, hostile: bool, k: str) -> list[list[str]]:
    # Two workers, since guests are mostly waited for; loadfile, since tests of a file share guests.
    two = ["-n", "2"]
    tests = [["tests/unit", "tests/properties", *two]]
    if not unit:
        tests += [["tests/integration", "--ignore", BREAKING, *two, "--dist", "loadfile"]]
        tests += [[BREAKING, *two]]
        tests += [["tests/hostile", "-m", "quick"]]
    if faults:
        tests = [[BREAKING, "-p", "no:randomly", "--fault-table", "docs/reliability.md"]]
    if hostile:
        tests = [["tests/hostile", "-p", "no:randomly", "-s"]]
        tests += [["tests/properties", "--examples", "20000"]]
    matching = ["-k", k] if k else []
    return [[sys.executable, "-m", "pytest", *arguments, *matching] for arguments in tests]
