# SPDX-License-Identifier: GPL-2.0-or-later
"""Blockyard is killed at random moments by SIGKILL, as by the OOM killer or a user.

Afterwards no process and no lock is left, and the next run succeeds without warnings about the
killed one. There are fifteen kills, three of them in `./inv check`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from blockyard.kernel.host import locks, seal, store, trees
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.integration.processes import descendants, left

KERNEL = "7.3"
LIMIT_S = 600
GIT = {"GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x@y", "GIT_CONFIG_GLOBAL": "/dev/null"}
GIT |= {"GIT_COMMITTER_NAME": "x", "GIT_COMMITTER_EMAIL": "x@y"}

GET = """
import os, sys
from pathlib import Path
from blockyard.kernel.host import store

def make(path):
    for number in range(200):
        (path / f"{number}.ko").write_bytes(os.urandom(10_000))

for number in range(1, 6):
    print(store.get("modules", f"{number:016x}", "a module", make))
"""


@dataclass
class Work:
    """A command to kill."""

    argv: list[str]
    expected: str  # in the output of a complete run
    environment: Mapping[str, str] = field(default_factory=dict)


def inv(*arguments: str) -> list[str]:
    return [sys.executable, "ci/start.py", *arguments]


def get(folder: Path, number: int) -> Work:
    cache = folder / f"cache-{number}"
    argv = [sys.executable, "-c", GET]
    return Work(argv, f"{5:016x}", {"BLOCKYARD_CACHE": str(cache)})


def fetch(folder: Path, number: int) -> Work:
    """Fetch a tiny kernel tree from its own git repository."""
    tree = folder / f"linux-{number}"
    tree.mkdir()
    (tree / "Makefile").write_text(f"VERSION = 9\nPATCHLEVEL = {number}\n# {folder}\n")
    (tree / "Kconfig").write_text("config X\n\tbool\n")
    for index in range(300):
        (tree / f"{index}.c").write_text(f"int x{index};\n" * 100)
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(tree), *command], check=True, env={**os.environ, **GIT})
    return Work(inv("kernel.fetch", f"{tree}#HEAD"), str(tree))


def module(folder: Path, number: int) -> Work:
    """Build an out-of-tree module that was never built before."""
    source = folder / f"c_null_{number}"
    shutil.copytree(PROJECT / "modules/examples/c_null", source)
    (source / "c_null.c").open("a").write(f"/* {folder} {number} */\n")
    return Work(inv("build", "--kernel", KERNEL, "--module", str(source)), "c_null.ko")


def boot(folder: Path, number: int) -> Work:
    return Work(inv("boot", "--kernel", KERNEL, "--run", "echo well"), "well\n")


WORKS: dict[str, Callable[[Path, int], Work]]
WORKS = {"get": get, "fetch": fetch, "module": module, "boot": boot}
KILLS = {"get": 5, "fetch": 4, "module": 3, "boot": 3}  # fifteen
ALWAYS = {("get", 0), ("fetch", 0), ("module", 0)}
took_s: dict[str, float] = {}  # kind of work → seconds of a complete run


def start(work: Work) -> subprocess.Popen[str]:
    return subprocess.Popen(
        work.argv,
        cwd=PROJECT,
        env={**os.environ, **work.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(work: Work) -> str:
    """Run it to its end and return its stderr; remove its entry from the user's cache."""
    process = start(work)
    output, errors = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, "Traceback" in errors) == (0, False), errors
    assert work.expected in output
    for entry in re.findall(r"\S+/(?:sources|modules)/[0-9a-f]{16}", output):
        if not work.environment:
            trees.remove(Path(entry))
    return errors


def params() -> Iterator[object]:
    for kind, kills in KILLS.items():
        for number in range(kills):
            marks = (pytest.mark.quick,) if (kind, number) in ALWAYS else ()
            yield pytest.param(kind, number, marks=marks, id=f"{kind}-{number}")


@pytest.mark.parametrize(("kind", "number"), list(params()))
def test_next_run_succeeds_after_a_kill(kind: str, number: int, tmp_path: Path) -> None:
    if kind not in took_s:
        started = time.monotonic()
        finish(WORKS[kind](tmp_path, 99))
        took_s[kind] = time.monotonic() - started
    work = WORKS[kind](tmp_path, number)
    victim = start(work)
    time.sleep(random.uniform(0.02, 0.95) * took_s[kind])
    children = descendants(victim.pid)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    assert left(children) == set()
    errors = finish(work)
    assert "broken" not in errors
    if kind == "get":  # the others use the user's cache, which may be busy
        assert "another run" not in errors
        check(Path(work.environment["BLOCKYARD_CACHE"]))


def check(cache: Path) -> None:
    """Check that all entries are complete, nothing unfinished is left and no lock is held."""
    names = sorted(path.name for path in (cache / "modules").iterdir())
    assert names == [f"{number:016x}" for number in range(1, 6)]
    for name in names:
        assert seal.verify(cache / "modules" / name, "modules") == []
    for lock in [*(cache / "locks").iterdir(), *(cache / "used").iterdir()]:
        with locks.try_lock(lock) as free:
            assert free
    assert store.MAKING not in str(names)
