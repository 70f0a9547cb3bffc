# SPDX-License-Identifier: GPL-2.0-or-later
"""A cache on a full disk: making an entry fails with a message, reading and gc still work.

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

def make_entry(path):
    (path / "kernel.json").write_text("{}")
    for name in ("bzImage", "config"):
        (path / name).write_bytes(bytes(100_000))

def fill():
    "Fill the disk."
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


def test_make_on_a_full_disk_fails_and_leaves_nothing(small_disk: list[str]) -> None:
    output = run(
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
    assert "kernel 7.3: no space left on the disk of" in output
    assert "cache.gc" in output
    assert output.endswith("[]\n")


@pytest.mark.parametrize("step", ["manifest", "rename", "lock"])
def test_disk_that_fills_up_during_a_step(small_disk: list[str], step: str) -> None:
    """A step without space leaves no entry and no traceback; with space the next make works."""
    output = run(
        small_disk,
        f"""
        step = {step!r}
        if step == "lock":
            fill()
        def make(path):
            make_entry(path)
            if step == "manifest":
                fill()
            if step == "rename":
                (path / "more").write_bytes(bytes(3_000_000))
                fill()
        try:
            store.get("kernels", KEYS[0], "kernel 7.3", make)
        except Failure as error:
            print(error.what)
        (CACHE / "logs" / "large").unlink()
        path = store.get("kernels", KEYS[0], "kernel 7.3", make_entry)
        print(seal.verify(path, "kernels"))
        """,
    )
    assert "no space left" in output or "No space left" in output
    assert output.endswith("[]\n")


def test_gc_works_without_writing(small_disk: list[str]) -> None:
    """There are no recorded sizes, markers or locks."""
    output = run(
        small_disk,
        """
        import shutil
        for key in KEYS[:3]:
            store.get("kernels", key, "kernel 7.3", make_entry)
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
    assert output == "4 0 0\n"


def test_existing_entry_is_used_and_listed(small_disk: list[str]) -> None:
    output = run(
        small_disk,
        """
        import shutil
        store.get("kernels", KEYS[0], "kernel 7.3", make_entry)
        store.forget()
        for folder in ("used", "locks"):
            shutil.rmtree(CACHE / folder)
        fill()
        print(store.use("kernels", KEYS[0]) is not None)
        print(len(gc.entries()), gc.collect(max_age_s=0, max_size=0).dropped)
        """,
    )
    assert output == "True\n1 ()\n"  # the lock is on the entry's folder


@pytest.mark.parametrize(
    ("task", "code", "expected"),
    [
        (["cache.gc", "--max-gb", "0"], 0, "dropped: kernels/"),
        (["kernel.list", "--json"], 0, '"cache"'),
        (["cache.check"], 0, "ok          kernels/"),
        (["doctor", "--json"], 1, "cache: "),
    ],
)
def test_commands_work_on_a_full_disk(
    small_disk: list[str], task: list[str], code: int, expected: str, tmp_path: Path
) -> None:
    script = f"""
        import subprocess
        def kernel(path):
            from blockyard.kernel import artifact
            make_entry(path)
            artifact.save_info(path, artifact.KernelInfo(key=path.name, name="x", release="7",
                source="s", config_sha256="", toolchain={{}}))
        store.get("kernels", KEYS[0], "kernel 7.3", kernel)
        store.forget()
        fill()
        done = subprocess.run([sys.executable, "ci/start.py", *{task!r}], capture_output=True,
            text=True)
        print(done.returncode)
        print(done.stdout, done.stderr)
    """
    output = run(small_disk, script)
    assert output.startswith(f"{code}\n"), output
    assert expected in output
    assert "Traceback" not in output
