# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups: limit the memory and the number of processes of a whole sandbox.

A group (cgroup v2 or v1) is made below the caller's own where that is allowed: as root, or where
the caller's group was delegated. Elsewhere only the resource limits per process apply.
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
REMOVAL_S = 2.0  # how long to wait for the last killed process of a group to go
# Controller → its limit's file in cgroup v2 and in v1.
_LIMITS = {
    "memory": ("memory.max", "memory.limit_in_bytes"),
    "pids": ("pids.max", "pids.max"),
}


@dataclass(frozen=True)
class Group:
    """A control group with limits."""

    folders: tuple[Path, ...] = ()  # one per hierarchy; empty: no group could be made

    @property
    def entrances(self) -> str:
        """The ``cgroup.procs`` files that a process writes its id to, one a line."""
        return "\n".join(str(folder / "cgroup.procs") for folder in self.folders)

    @property
    def exceeded(self) -> str:
        """The limit that was hit: "memory", "processes" or empty."""
        if self._counted("pids.events", "max"):
            return "processes"
        events = ("memory.events", "memory.oom_control")
        return "memory" if any(self._counted(name, "oom_kill") for name in events) else ""

    def _counted(self, file: str, event: str) -> bool:
        for folder in self.folders:
            with contextlib.suppress(OSError, ValueError):
                words = (folder / file).read_text().split()  # name, count, name, count, …
                if int(dict(zip(words[::2], words[1::2], strict=False)).get(event, 0)):
                    return True
        return False


@contextlib.contextmanager
def group(memory_mib: int | None, processes: int | None) -> Iterator[Group]:
    """Makes a group with these limits, as far as that is allowed, and removes it at the end."""
    limits = {"memory": memory_mib and memory_mib << 20, "pids": processes}
    folders: list[Path] = []
    with contextlib.suppress(OSError, ValueError):
        name = f"blockyard-{os.getpid()}-{next(_count)}"
        for controller, limit in limits.items():
            if limit and (parent := _parent(controller)):
                _sweep(parent)
                _make(parent / name, controller, limit, folders)
    try:
        yield Group(tuple(folders))
    finally:
        for folder in folders:
            _remove(folder)


def _sweep(parent: Path) -> None:
    """Removes groups left by Blockyard processes that were killed."""
    for folder in parent.glob("blockyard-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            with contextlib.suppress(OSError):  # removed by another run, or not empty
                folder.rmdir()


def _make(folder: Path, controller: str, limit: int, folders: list[Path]) -> None:
    """Makes a group's folder and sets one limit; in v2 all limits share one folder."""
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
        except OSError:  # a killed process is still exiting
            if time.monotonic() > until:
                return
            time.sleep(0.02)


def _parent(controller: str) -> Path | None:
    """The folder of our own group in a controller's hierarchy; None if it takes no sub-groups."""
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
    """Whether sub-groups have the controller; enables it where that is allowed."""
    control = folder / "cgroup.subtree_control"
    if controller in control.read_text().split():
        return True
    try:
        control.write_text(f"+{controller}\n")
    except OSError:  # the group itself has processes, or it was not delegated
        return False
    return True


def _mounts(controller: str) -> Iterator[tuple[Path, int, str]]:
    """Mount point, cgroup version and root of each hierarchy that may have a controller."""
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mount_point = before.split(" ")[3:5]
        if kind == "cgroup2":
            yield Path(mount_point), 2, root
        elif kind == "cgroup" and controller in options.split(" ")[-1].split(","):
            yield Path(mount_point), 1, root


def _own(controller: str, version: int) -> Iterator[str]:
    """Paths of our own group, from /proc/self/cgroup (cgroups(7): hierarchy, controllers, path)."""
    for line in Path("/proc/self/cgroup").read_text(errors="replace").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" if version == 2 else controller in controllers.split(","):
            yield path
