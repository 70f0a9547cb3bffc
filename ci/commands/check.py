# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv check`: what checks our own code, one program after the other; and the import graph."""

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

BREAKING = "tests/integration/test_reliability.py"  # its guests break
NOTHING_MATCHED = 5  # pytest's exit code
SKIPPED = ("blockyard", "results")  # folders: links to the others, and what is no source


def run(*, unit: bool, faults: bool, hostile: bool, k: str) -> list[str]:
    """Runs the checks, their output on ours; returns the commands that failed.

    unit: without guests. faults, hostile: these tests alone, in full. k: tests by pytest's -k.
    """
    failed = []
    for command in [*_linters(), *_tests(unit=unit, faults=faults, hostile=hostile, k=k)]:
        shown = shlex.join([Path(command[0]).name, *command[1:]]).removeprefix("python -m ")
        print(f"$ {shown}", flush=True)
        own = start(command, cwd=PROJECT, env=environment.of_the_checkout())
        with reaped(own, GRACE_S, signal.SIGINT) as process:
            code = process.wait()
        if code not in (0, NOTHING_MATCHED if k else 0):
            failed.append(shown if len(shown) < 80 else shown.partition(" ")[0])
    return failed


def draw_imports(checkout: str, output: str) -> None:
    """Draws the imports of a checkout (empty: this one) into an SVG file; see import_graph."""
    program = Path(__file__).with_name("import_graph.py")
    # apart: another checkout's packages have the names of ours
    argv = [sys.executable, "-I", str(program), checkout or str(PROJECT), output]
    with reaped(start(argv, env=environment.of_the_checkout()), GRACE_S) as process:
        if process.wait():
            raise Failure(f"cannot draw the imports of {checkout or PROJECT}")


def shell_files() -> list[Path]:
    """Every shell script of the checkout, by its suffix or its first line."""
    found = []
    for top in sorted(PROJECT.iterdir()):
        if top.name in SKIPPED or (top.name.startswith(".") and top.name != ".ci"):
            continue
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        found += [path for path in files if path.is_file() and _is_shell(path)]
    return found


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
    # Side by side: guests are mostly waited for. loadfile, as the tests of a file share guests.
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
    return [[sys.executable, "-m", "pytest", *which, *matching] for which in tests]
