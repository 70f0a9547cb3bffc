# SPDX-License-Identifier: GPL-2.0-or-later
"""The one folder that a module's own tests write to, and what they find in it.

Before they run, it gets a cache of its own with what guests start from: copies, so that nothing of
the user's cache can be changed. Afterwards the logs of their guests are taken out of it, and it is
removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from images import snapshot
from images.machine import machine
from images.topology import Topology
from kernel.host import store
from kernel.host.progress import note
from tests.plan import Plan

COPIED = ("accelerator", "qemu")  # kinds of the cache: small files, what was found out
LOG_BYTES = 512 << 20  # of one file that is kept
KEPT_BYTES = 4 << 30  # of all of them
KEPT_FILES = 10_000


def part(folder: Path, name: str) -> Path:
    """A folder in it, made if need be."""
    path = folder / name
    path.mkdir(exist_ok=True)
    return path


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """One for a list of tests."""
    path = Path(tempfile.mkdtemp(prefix="blockyard-"))
    try:
        yield path
    finally:
        store.remove(path)


@contextlib.contextmanager
def of_a_run(directory: Path, name: str) -> Iterator[Path]:
    """One on the disk of the results, where guests' disks have room."""
    path = directory / f".own-{name}"
    path.mkdir()
    try:
        yield path
    finally:
        store.remove(path)


def prepare(plan: Plan, folder: Path, hardware: Sequence[Topology]) -> None:
    """Fills its cache. A snapshot that is due is made here, where nothing of theirs runs."""
    cache = part(folder, "cache")
    for kind in COPIED:
        shutil.copytree(store.directory(kind), cache / kind, dirs_exist_ok=True)
    kernel = plan.load_kernel()
    for one in hardware if plan.start != "boot" else ():
        wanted = replace(plan.setup(kernel, folder, "", ssh=False), topology=one)
        if snapshot.obstacle(wanted) or not (plan.start == "snapshot" or snapshot.is_due(wanted)):
            continue
        saved = snapshot.snapshot(wanted, machine).path
        target = cache / "snapshots" / saved.name
        target.parent.mkdir(exist_ok=True)
        # a file as long as the guest's memory, most of it holes, which cp leaves out
        subprocess.run(["cp", "-a", "--sparse=auto", "--", str(saved), str(target)], check=True)


def needed(plan: Plan) -> list[Path]:
    """What of the cache guests need, read-only."""
    entries = {Path(path).parent for path in (plan.root, plan.modules, plan.initramfs)}
    return [Path(plan.kernel), Path(plan.tools), *sorted(entries)]


def keep(source: Path, target: Path) -> None:
    """Moves the guests' files to the run's folder: regular ones of a bounded size, nothing else."""
    count = size = 0
    for folder in _folders(source):
        for entry in os.scandir(folder):
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_size > LOG_BYTES:
                continue
            count, size = count + 1, size + status.st_size
            if count > KEPT_FILES or size > KEPT_BYTES:
                note(f"{target}: not all files of guests were kept, they are too many")
                return
            place = target / folder.name
            place.mkdir(parents=True, exist_ok=True)
            Path(entry.path).chmod(0o644)
            Path(entry.path).rename(place / entry.name)


def _folders(source: Path) -> Iterator[Path]:
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)
