# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups for what runs in the sandbox: memory and processes of all of it together.

A group is made below our own, of version 2 or 1, when we may: as root, or where the group was
delegated to us. Elsewhere there is none, and resource limits per process have to do.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_count = itertools.count()
REMOVAL_S = 2.0  # the last process of a group is gone within this, once all were killed
# Controller → file of its limit, in version 2 and in version 1.
_LIMITS = {
    "memory": ("memory.max", "memory.limit_in_bytes"),
    "pids": ("pids.max", "pids.max"),
}


@dataclass(frozen=True)
class Group:
    """A control group with limits; without folders there is none."""

    folders: tuple[Path, ...] = ()

    @property
    def entrances(self) -> str:
        """The files that a process writes its id to, one a line."""
        return "\n".join(str(folder / "cgroup.procs") for folder in self.folders)

    @property
    def exceeded(self) -> str:
        """Which limit was hit: "memory", "processes" or empty."""
        if self._counted("pids.events", "max"):
            return "processes"
        events = ("memory.events", "memory.oom_control")
        return "memory" if any(self._counted(name, "oom_kill") for name in events) else ""

    def _counted(self, file: str, event: str) -> bool:
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError):
                words = (folder / file).read_text().split()
                if int(dict(zip(words[::2], words[1::2], strict=False)).get(event, 0)):
                    return True
        return False


@contextlib.contextmanager
def group(memory_mib: int | None, processes: int | None) -> Iterator[Group]:
    """A group with these limits, as far as one may be made; removed at the end."""
    wanted = {"memory": memory_mib and memory_mib << 20, "pids": processes}
    folders: list[Path] = []
    with contextlib.suppress(OSError, ValueError):
        name = f"blockyard-{os.getpid()}-{next(_count)}"
        for controller, limit in wanted.items():
            if limit and (parent := _parent(controller)):
                _sweep(parent)
                _make(parent / name, controller, limit, folders)
    try:
        yield Group(tuple(folders))
    finally:
        for folder in folders:
            _remove(folder)


def _sweep(parent: Path) -> None:
    """Removes groups of processes of ours that were killed."""
    for folder in parent.glob("blockyard-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):  # another run was quicker, or it is not empty
                folder.rmdir()


def _make(folder: Path, controller: str, limit: int, folders: list[Path]) -> None:
    """Makes the folder of a group, or adds a limit to one of version 2 that was made already."""
    with contextlib.suppress(OSError):
        folder.mkdir(exist_ok=True)
        for file in _LIMITS[controller]:
            if (folder / file).exists():
                (folder / file).write_text(f"{limit}\n")
                if folder not in folders:
                    folders.append(folder)
                return
        folder.rmdir()


def _remove(folder: Path) -> None:
    until = time.monotonic() + REMOVAL_S
    while True:
        try:
            folder.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:  # a process that was killed has not gone yet
            if time.monotonic() > until:
                return
            time.sleep(0.02)


def _parent(controller: str) -> Path | None:
    """The folder of our own group in a controller's hierarchy, where groups may be made."""
    for mounted, version, root in _mounts(controller):
        for path in _own(controller, version):
            folder = mounted / os.path.relpath(path, root)
            if not os.access(folder, os.W_OK):
                continue
            if version == 2 and not _enabled(folder, controller):
                continue
            return folder
    return None


def _enabled(folder: Path, controller: str) -> bool:
    """Whether groups below this one have the controller; switched on if we may."""
    control = folder / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return True
    try:
        control.write_text(f"+{controller}\n")
    except OSError:  # processes are in the group itself, or it was not delegated
        return False
    return True


def _mounts(controller: str) -> Iterator[tuple[Path, int, str]]:
    """Mount point, version and root of each hierarchy that may have a controller."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, place = before.split(" ")[3:5]
        if kind == "cgroup2":
            yield Path(place), 2, root
        elif kind == "cgroup" and controller in options.split(" ")[-1].split(","):
            yield Path(place), 1, root


def _own(controller: str, version: int) -> Iterator[str]:
    """The path of our own group (cgroups(7): hierarchy, controllers, path)."""
    for line in Path("/proc/self/cgroup").read_text(errors="replace").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" if version == 2 else controller in controllers.split(","):
            yield path
