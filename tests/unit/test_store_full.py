# SPDX-License-Identifier: GPL-2.0-or-later
"""A cache on a disk without room: making says so, looking works, and a clean-up frees.

The disk is a small tmpfs, in a mount namespace of its own.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from blockyard.kernel.host.settings import PROJECT

HEAD = """
import sys
from pathlib import Path
from blockyard.kernel.host import gc, seal, store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import settings

CACHE = settings().cache_dir
KEYS = [f"{number:016x}" for number in range(9)]

def entry(path):
    (path / "kernel.json").write_text("{}")
    for name in ("bzImage", "config"):
        (path / name).write_bytes(bytes(100_000))

def fill():
    "Takes all blocks and, by empty files, all inodes."
    CACHE.mkdir(parents=True, exist_ok=True)
    (CACHE / "logs").mkdir(exist_ok=True)
    try:
        with open(CACHE / "logs" / "large", "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 12))
    except OSError:
        pass
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> list[str]:
    disk = tmp_path / "disk"
    disk.mkdir()
    argv = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--size", str(4 << 20)]
    argv += ["--tmpfs", str(disk), "--setenv", "BLOCKYARD_CACHE", str(disk / "cache")]
    return [*argv, "--setenv", "BLOCKYARD_RESULTS", str(disk / "results")]


def run(disk: list[str], script: str) -> str:
    done = subprocess.run(
        [*disk, sys.executable, "-c", HEAD + textwrap.dedent(script)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_a_making_says_so_and_leaves_nothing(small_disk: list[str]) -> None:
    told = run(
        small_disk,
        """
        def large(path):
            (path / "bzImage").write_bytes(bytes(8 << 20))
        try:
            store.get("kernels", KEYS[0], "kernel 7.3", large)
        except Failure as error:
            print(error)
        print(list((CACHE / "kernels").iterdir()))
        """,
    )
    assert "kernel 7.3: no space left on the disk of" in told
    assert "cache.gc" in told
    assert told.endswith("[]\n")


@pytest.mark.parametrize("where", ["manifest", "rename", "lock"])
def test_the_disk_is_full_just_before(small_disk: list[str], where: str) -> None:
    """Whatever step of a making finds no room: no entry, no traceback, and then it works."""
    told = run(
        small_disk,
        f"""
        where = {where!r}
        if where == "lock":
            fill()
        def make(path):
            entry(path)
            if where == "manifest":
                fill()
            if where == "rename":
                (path / "more").write_bytes(bytes(3_000_000))
                fill()
        try:
            store.get("kernels", KEYS[0], "kernel 7.3", make)
        except Failure as error:
            print(error.what)
        (CACHE / "logs" / "large").unlink()
        path = store.get("kernels", KEYS[0], "kernel 7.3", entry)
        print(seal.verify(path, "kernels"))
        """,
    )
    assert "no space left" in told or "No space left" in told
    assert told.endswith("[]\n")


def test_a_clean_up_frees_without_writing(small_disk: list[str]) -> None:
    """No size was measured yet, no entry has a marker, and there is no lock."""
    told = run(
        small_disk,
        """
        import shutil
        for key in KEYS[:3]:
            store.get("kernels", key, "kernel 7.3", entry)
        (CACHE / "builds" / KEYS[3]).mkdir(parents=True)
        (CACHE / "builds" / KEYS[3] / "x.o").write_bytes(bytes(100_000))
        store.forget()
        for folder in ("used", "locks"):
            shutil.rmtree(CACHE / folder)
        fill()
        freed = gc.collect(max_age_s=None, max_size=0)
        print(len(freed.dropped), len(freed.in_use), freed.size)
        """,
    )
    assert told == "4 0 0\n"


def test_what_is_there_is_used_and_listed(small_disk: list[str]) -> None:
    told = run(
        small_disk,
        """
        import shutil
        store.get("kernels", KEYS[0], "kernel 7.3", entry)
        store.forget()
        for folder in ("used", "locks"):
            shutil.rmtree(CACHE / folder)
        fill()
        print(store.use("kernels", KEYS[0]) is not None)
        print(len(gc.entries()), gc.collect(max_age_s=0, max_size=0).dropped)
        """,
    )
    assert told == "True\n1 ()\n"  # held by its folder


@pytest.mark.parametrize(
    ("task", "code", "said"),
    [
        (["cache.gc", "--max-gb", "0"], 0, "dropped: kernels/"),
        (["kernel.list", "--json"], 0, '"cache"'),
        (["cache.check"], 0, "ok          kernels/"),
        (["doctor", "--json"], 1, "cache: "),
    ],
)
def test_the_commands(
    small_disk: list[str], task: list[str], code: int, said: str, tmp_path: Path
) -> None:
    script = f"""
        import subprocess
        def whole(path):
            from blockyard.kernel import artifact
            entry(path)
            artifact.save_info(path, artifact.KernelInfo(key=path.name, name="x", release="7",
                source="s", config_sha256="", toolchain={{}}))
        store.get("kernels", KEYS[0], "kernel 7.3", whole)
        store.forget()
        fill()
        done = subprocess.run([sys.executable, "ci/start.py", *{task!r}], capture_output=True,
            text=True)
        print(done.returncode)
        print(done.stdout, done.stderr)
    """
    told = run(small_disk, script)
    assert told.startswith(f"{code}\n"), told
    assert said in told
    assert "Traceback" not in told
