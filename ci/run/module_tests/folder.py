# SPDX-License-Identifier: GPL-2.0-or-later
"""The only folder that a module's own tests can write to.

Before they run, it gets a cache with copies of what guests boot from, so that they cannot change
the user's cache. After they have run, the logs of their guests are moved out of it, and it is
removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from blockyard.images.boot import boot
from blockyard.images.console import CONSOLES
from blockyard.images.hardware.topology import Topology
from blockyard.images.machine import snapshot
from blockyard.kernel.host import commands, store
from blockyard.kernel.host.progress import note
from blockyard.tests.harness.plan import Plan

COPIED = ("accelerator", "qemu")  # kinds of the cache with small files: results of probes
PREFIX = ".own-"  # of the folder's name, in the folder of a run
LOG_BYTES = 512 << 20  # limit for a file that is kept,
KEPT_BYTES = 4 << 30  # for all of them,
KEPT_FILES = 10_000  # and for their number


def part(folder: Path, name: str) -> Path:
    """A sub-folder, which is made if it does not exist."""
    path = folder / name
    path.mkdir(exist_ok=True)
    return path


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A temporary folder, for collecting tests."""
    path = Path(tempfile.mkdtemp(prefix="blockyard-"))
    try:
        yield path
    finally:
        store.remove(path)


@contextlib.contextmanager
def of_a_run(directory: Path, name: str) -> Iterator[Path]:
    """A folder in that of a run, where there is room for guests' disks; locked while in use."""
    path = directory / f"{PREFIX}{name}"
    path.mkdir()
    try:
        with store.in_use(path):
            yield path
    finally:
        store.remove(path)


def left(run: Path) -> list[Path]:
    """Such folders in that of a run. A run that has ended has some if it was killed."""
    paths = [*run.glob(f"{PREFIX}*"), *run.glob(f"resumed-*/{PREFIX}*")]
    return [path for path in paths if path.is_dir() and not path.is_symlink()]


def remove_left(run: Path) -> None:
    """Removes such folders from that of a run unless they are in use."""
    for path in left(run):
        # it is in use, already removed, or another user's
        with contextlib.suppress(OSError), store.in_use(path, fcntl.LOCK_EX):
            store.remove(path)


def prepare(plan: Plan, folder: Path, hardware: Sequence[Topology]) -> None:
    """Fills the folder's cache; makes the snapshots that are due, outside of the enclosure."""
    cache = part(folder, "cache")
    for kind in COPIED:
        # hidden files are being written by another run, which then renames them
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(store.directory(kind), cache / kind, ignore=hidden, dirs_exist_ok=True)
    if plan.scope.start == "boot":
        return
    env, start = plan.resolved(), plan.scope.start
    for topology in hardware:
        setup = env.setup(folder, topology=topology, start=start)
        if snapshot.obstacle(setup) or not (start == "snapshot" or snapshot.is_due(setup)):
            continue
        saved = snapshot.snapshot(setup, boot).path
        target = cache / "snapshots" / saved.name
        target.parent.mkdir(exist_ok=True)
        # a file of the size of the guest's memory, mostly holes, which cp preserves
        copied = commands.ask(["cp", "-a", "--sparse=auto", "--", str(saved), str(target)])
        copied.check_returncode()


def needed(plan: Plan) -> list[Path]:
    """Entries of the cache that guests need, read-only."""
    assert plan.env is not None
    images = {plan.env.root, plan.env.modules, plan.env.initramfs}
    found = [store.path_of("images") / key for key in sorted(images)]
    return [store.path_of("kernels") / plan.env.kernel, plan.env.tool_root.path, *found]


def keep(source: Path, target: Path, driver: str) -> None:
    """Moves the files of a driver's guests to the run's folder; overwrites nothing.

    Only regular files of limited size are kept. They are checked after the move, when the module's
    tests can no longer change them. Files that cannot be moved are skipped.
    """
    count = size = 0
    for name, descriptor in _folders(source, driver):
        for entry in sorted(os.listdir(descriptor)):  # noqa: PTH208
            with contextlib.suppress(OSError):
                size += _move(descriptor, entry, target / name)
                count += 1
            if count > KEPT_FILES or size > KEPT_BYTES:
                note(f"{target}: not all files of guests were kept: they are too many or too large")
                return


def _move(descriptor: int, entry: str, folder: Path) -> int:
    """Moves a file; returns its size in bytes, 0 if it was not moved. Raises OSError."""
    kept = folder / entry
    if not stat.S_ISREG(os.lstat(entry, dir_fd=descriptor).st_mode) or os.path.lexists(kept):
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    os.rename(entry, kept, src_dir_fd=descriptor)  # noqa: PTH104 - it has no dir_fd
    status = kept.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LOG_BYTES:
        store.remove(kept) if stat.S_ISDIR(status.st_mode) else kept.unlink()
    else:
        kept.chmod(0o644)
    return status.st_size


def _folders(source: Path, driver: str) -> Iterator[tuple[str, int]]:
    """Name and descriptor of each guest's folder; symbolic links are skipped."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # names that tests.harness.guests gives to guests of own tests
    named = re.compile(rf"{re.escape(driver)}-({'|'.join(CONSOLES)})(-[\w.-]+)?-own-\w+")
    for path in sorted(source.iterdir()):
        if not named.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            descriptor = os.open(path, flags)
            stack.callback(os.close, descriptor)
            yield path.name, descriptor
