# SPDX-License-Identifier: GPL-2.0-or-later
"""A power cut at any moment while the cache is written; the next run must recover.

A process records what it has flushed. Before each system call that opens, renames or removes
something, it copies the cache to a state that a disk could have after a power cut: unflushed
files are truncated, and folders have either all names or only the flushed ones.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.images.machine.scratch import scratch
from blockyard.kernel import artifact
from blockyard.kernel.host import gc, seal, store
from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.settings import PROJECT, settings

KEYS = [f"{number:016x}" for number in range(1, 5)]

# The work that is cut: entries of several kinds, a repair, small files, a guest, a clean-up.
WORK = """
import os, sys
from pathlib import Path
from blockyard.images.machine.scratch import scratch
from blockyard.kernel import artifact
from blockyard.kernel.host import gc, store

KEYS = [f"{number:016x}" for number in range(1, 5)]

def kernel(path):
    info = artifact.KernelInfo(key=path.name[-16:], name="x", release="7", source="s",
        config_sha256="", toolchain={})
    for name in ("bzImage", "config"):
        (path / name).write_bytes(name.encode() * 1000)
    (path / "modules").mkdir()
    (path / "modules" / "x.ko").write_bytes(b"module" * 1000)
    artifact.save_info(path, info)

def snapshot(path):
    for name in ("state", "memory"):
        (path / name).write_bytes(name.encode() * 1000)
    (path / "times.json").write_text("{}")

def work(guest):
    path = store.get("kernels", KEYS[0], "a kernel", kernel)
    (path / "bzImage").write_bytes(b"")
    store.forget()
    store.get("kernels", KEYS[0], "a kernel", kernel)
    path = store.get("snapshots", KEYS[1], "a snapshot", snapshot)
    store.keep(path / "times.json", b'{"boot_s": 1.0}')
    store.write(store.path_of("resolved") / "7.3.json", b"[]" * 100)
    with scratch(guest):
        (guest / "disk.raw").write_bytes(b"x")
    store.get("kernels", KEYS[2], "another kernel", kernel)
    store.forget()
    gc.collect(max_age_s=0, max_size=None)
"""

CUTS = """
import shutil, stat

FLUSHED = {}  # inode -> (size, mtime) of a file, or names of a folder

def state(status, path):
    if stat.S_ISDIR(status.st_mode):
        return sorted(os.listdir(path))
    return status.st_size, status.st_mtime_ns

def flushed(descriptor):
    status = os.fstat(descriptor)
    FLUSHED[status.st_ino] = state(status, descriptor)

def after_cut(source, target, names):
    os.mkdir(target)
    kept = os.listdir(source)
    if names == "flushed":
        kept = [name for name in FLUSHED.get(os.stat(source).st_ino, kept) if name in kept]
    for name in kept:
        original, copy = f"{source}/{name}", f"{target}/{name}"
        status = os.lstat(original)
        if stat.S_ISDIR(status.st_mode):
            after_cut(original, copy, names)
        elif stat.S_ISREG(status.st_mode):
            shutil.copy2(original, copy)
            if FLUSHED.get(status.st_ino) != state(status, original):
                os.truncate(copy, 0 if COUNT[0] % 2 else status.st_size // 2)

COUNT, BUSY = [0], []

def cut(event, arguments):
    watched = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
    if event not in watched or BUSY or not os.path.isdir(CACHE):
        return
    if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    BUSY.append(event)
    COUNT[0] += 1
    for names in ("all", "flushed"):
        after_cut(CACHE, f"{COPIES}/{COUNT[0]:04}-{names}", names)
    BUSY.pop()

from blockyard.kernel.host import durable
from blockyard.kernel.host.settings import settings
durable.flush = flushed
CACHE, COPIES = str(settings().cache_dir), sys.argv[1]
sys.addaudithook(cut)
work(Path(sys.argv[2]))
print(COUNT[0])
"""


@pytest.fixture
def copies(tmp_path: Path) -> list[Path]:
    """Copies of the cache, one per power cut and choice of names."""
    (tmp_path / "copies").mkdir()
    arguments = [str(tmp_path / "copies"), str(tmp_path / "guest")]
    done = subprocess.run(
        [sys.executable, "-c", WORK + CUTS, *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    paths = sorted((tmp_path / "copies").iterdir())
    assert len(paths) == 2 * int(done.stdout) > 100
    return paths


def next_run(tmp_path: Path) -> None:
    """Repeat the work, as a new process would, and check that the entries are complete."""
    namespace: dict[str, object] = {}
    exec(WORK, namespace)  # the functions alone
    kernel, snapshot = namespace["kernel"], namespace["snapshot"]
    for kind, key, make in (
        ("kernels", KEYS[0], kernel),
        ("snapshots", KEYS[1], snapshot),
        ("kernels", KEYS[2], kernel),
    ):
        path = store.get(kind, key, "an entry", make)  # type: ignore[arg-type]
        assert seal.verify(path, kind) == []
        if kind == "kernels":
            assert (path / "bzImage").read_bytes() == b"bzImage" * 1000
            assert artifact.load(path).info.key == key
    with scratch(tmp_path / "next"):
        pass
    gc.collect(max_age_s=None, max_size=0)
    assert {path.name[0] for kind in ("kernels", "snapshots") for path in listed(kind)} == {"0"}


def listed(kind: str) -> list[Path]:
    return [path for path in store.path_of(kind).iterdir() if path.is_dir()]


def valid_entries(cache: Path) -> int:
    """Count the entries whose seal is intact, and check that their contents are complete."""
    seen = 0
    for kind in ("kernels", "snapshots"):
        for path in (cache / kind).glob("[0-9a-f]*"):
            if seal.problem(path, kind) == "":
                assert seal.verify(path, kind) == []
                seen += 1
            else:  # only the entry that the work itself truncates
                assert not (path / "bzImage").stat().st_size
    return seen


def test_next_run_succeeds_after_every_cut(
    copies: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0
    for cache in copies:
        monkeypatch.setenv("BLOCKYARD_CACHE", str(cache))
        settings.cache_clear()
        store.forget()
        try:
            seen += valid_entries(cache)
            next_run(tmp_path)
        except (AssertionError, OSError, BlockyardError) as error:
            pytest.fail(f"after {cache.name}: {error!r}")
        store.forget()
        shutil.rmtree(cache)
    assert seen > 50
