# SPDX-License-Identifier: GPL-2.0-or-later
"""The one folder that a module's own tests write to, and what they find in it.

Before they run, it gets a cache of its own with what guests start from: copies, so that nothing of
the user's cache can be changed. Afterwards the logs of their guests are taken out of it, and it is
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

COPIED = ("accelerator", "qemu")  # kinds of the cache: small files, what was found out
PREFIX = ".own-"  # of its name, in the folder of a run
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
    path = directory / f"{PREFIX}{name}"
    path.mkdir()
    try:
        with store.in_use(path):
            yield path
    finally:
        store.remove(path)


def left(run: Path) -> list[Path]:
    """Those in the folder of a run: of one that has ended, it was killed."""
    found = [*run.glob(f"{PREFIX}*"), *run.glob(f"resumed-*/{PREFIX}*")]
    return [path for path in found if path.is_dir() and not path.is_symlink()]


def remove_left(run: Path) -> None:
    """Removes those that nobody holds from the folder of a run."""
    for path in left(run):
        # somebody is at work in it, or was quicker, or it is another user's
        with contextlib.suppress(OSError), store.in_use(path, fcntl.LOCK_EX):
            store.remove(path)


def prepare(plan: Plan, folder: Path, hardware: Sequence[Topology]) -> None:
    """Fills its cache. A snapshot that is due is made here, where nothing of theirs runs."""
    cache = part(folder, "cache")
    for kind in COPIED:
        # hidden: what another run is just writing, which has another name a moment later
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(store.directory(kind), cache / kind, ignore=hidden, dirs_exist_ok=True)
    if plan.scope.start == "boot":
        return
    env, start = plan.resolved(), plan.scope.start
    for one in hardware:
        wanted = env.setup(folder, topology=one, start=start)
        if snapshot.obstacle(wanted) or not (start == "snapshot" or snapshot.is_due(wanted)):
            continue
        saved = snapshot.snapshot(wanted, boot).path
        target = cache / "snapshots" / saved.name
        target.parent.mkdir(exist_ok=True)
        # a file as long as the guest's memory, most of it holes, which cp leaves out
        copied = commands.ask(["cp", "-a", "--sparse=auto", "--", str(saved), str(target)])
        copied.check_returncode()


def needed(plan: Plan) -> list[Path]:
    """What of the cache guests need, read-only."""
    assert plan.env is not None
    images = {plan.env.root, plan.env.modules, plan.env.initramfs}
    found = [store.path_of("images") / key for key in sorted(images)]
    return [store.path_of("kernels") / plan.env.kernel, plan.env.tool_root.path, *found]


def keep(source: Path, target: Path, driver: str) -> None:
    """Moves the files of a driver's guests to the run's folder; what is there stays as it is.

    Regular files of a bounded size, and nothing else. What is moved is looked at where it has
    arrived: there, nothing of theirs can change it. What cannot be moved is left behind.
    """
    count = size = 0
    for name, descriptor in _folders(source, driver):
        for entry in sorted(os.listdir(descriptor)):  # noqa: PTH208
            with contextlib.suppress(OSError):
                size += _move(descriptor, entry, target / name)
                count += 1
            if count > KEPT_FILES or size > KEPT_BYTES:
                note(f"{target}: not all files of guests were kept, they are too many")
                return


def _move(descriptor: int, entry: str, place: Path) -> int:
    """The bytes of the file that was moved; 0 for none. Raises OSError."""
    kept = place / entry
    if not stat.S_ISREG(os.lstat(entry, dir_fd=descriptor).st_mode) or os.path.lexists(kept):
        return 0
    place.mkdir(parents=True, exist_ok=True)
    os.rename(entry, kept, src_dir_fd=descriptor)  # noqa: PTH104 - it has no dir_fd
    status = kept.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > LOG_BYTES:
        store.remove(kept) if stat.S_ISDIR(status.st_mode) else kept.unlink()
    else:
        kept.chmod(0o644)
    return status.st_size


def _folders(source: Path, driver: str) -> Iterator[tuple[str, int]]:
    """Name and descriptor of each guest's folder, no link among them."""
    how = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    # as tests.harness.guests calls those of own tests
    named = re.compile(rf"{re.escape(driver)}-({'|'.join(CONSOLES)})(-[\w.-]+)?-own-\w+")
    for path in sorted(source.iterdir()):
        if not named.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            descriptor = os.open(path, how)
            stack.callback(os.close, descriptor)
            yield path.name, descriptor
