# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a program inside a root directory that is not the host's, with bubblewrap.

The root is read-only. What a program may see of the host is bound below ``/mnt`` by name, so the
same work has the same paths on every machine. There is no network unless it is asked for, and
everything inside ends when its parent does (bwrap's --die-with-parent).

Who runs inside is uid 0 there and the caller outside. When that is root, the kernel takes it for
the host's root in many places, so it has no capability, sees what steers the host in /proc
read-only, and may make no system call that it does not need (`seccomp`); docs/security.md has the
whole picture. `kernel/scripts/sandbox` starts bwrap with that filter and with limits.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from blockyard.kernel.host import commands, seccomp, store
from blockyard.kernel.host.commands import FIRST, SANDBOX
from blockyard.kernel.host.limits import Limits

BIND = "/mnt"  # every bound path stands below it

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
}
# Of /proc, what uid 0 may write to without any capability, and what shows the kernel's memory.
STEERING: tuple[str, ...] = ("acpi", "bus", "dynamic_debug", "fs", "irq", "kcore", "mtrr", "scsi")
STEERING += ("sys", "sysrq-trigger")
# systemd mounts something here on a directory that is always empty, which hides nothing
_HIDES_NOTHING = "/proc/sys/fs/binfmt_misc"
_SMALL = 16 << 20  # bytes, of a tmpfs that only holds mount points
# The first versions of bwrap with these options.
_USERNS, _SIZE = (0, 8), (0, 7)


@dataclass(frozen=True)
class Sandbox:
    """A root directory and what is bound into it."""

    root: Path  # an unpacked Debian root
    read_only: Mapping[str, Path] = field(default_factory=dict)  # name below /mnt → host path
    writable: Mapping[str, Path] = field(default_factory=dict)  # name below /mnt → host path
    devices: Sequence[str] = ()  # host device nodes, such as /dev/kvm
    network: bool = False
    proxies: bool = True  # with the network, whether programs get the user's proxies
    environment: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[Path] = ()  # folders of the root that are empty inside,
    shown: Sequence[Path] = ()  # and what of the root is seen below them nevertheless
    nested: bool = False  # sandboxes are made inside; its user is then 1000 and not 0
    io_uring: bool = False
    supervised: bool = False  # counts CPU time and limits processes; bash must be inside
    limits: Limits = field(default_factory=Limits)

    @property
    def variables(self) -> dict[str, str]:
        """The environment inside, all of it."""
        return {**_ENVIRONMENT, **self.environment}

    def argv(self, command: Sequence[str], *, directory: str = "/") -> list[str]:
        """The argument list that runs `command` inside, in `directory`."""
        user = "1000" if self.nested else "0"  # to map uid 0 once more takes CAP_SETFCAP
        argv = [*self._script(), "--die-with-parent"]
        argv += ["--unshare-user", "--uid", user, "--gid", user, "--cap-drop", "ALL"]
        if not self.nested and _can_disable_user_namespaces():
            argv.append("--disable-userns")
        argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "blockyard"]
        argv += ["--ro-bind", str(self.root), "/", *_proc(), "--dev", "/dev"]
        for place in (*map(str, self.hidden), BIND):
            argv += _tmpfs(place, _SMALL)
        for place in ("/tmp", "/dev/shm"):
            argv += _tmpfs(place, self.limits.tmpfs_mib << 20)
        for path in self.shown:
            argv += ["--ro-bind", str(path), str(path)]
        for name, path in self.read_only.items():
            argv += ["--ro-bind", str(path), f"{BIND}/{name}"]
        for name, path in self.writable.items():
            argv += ["--bind", str(path), f"{BIND}/{name}"]
        for device in self.devices:
            argv += ["--dev-bind", device, device]
        argv += ["--remount-ro", "/dev", *self._network()]
        for name, value in self.variables.items():
            argv += ["--setenv", name, value]
        if self.supervised:
            argv.append("--as-pid-1")
            command = [*FIRST, str(self.limits.processes or ""), *command]
        return [*argv, "--chdir", directory, "--", *command]

    def _script(self) -> list[str]:
        argv = [str(SANDBOX), str(_filter(self.nested, self.io_uring))]
        if self.limits.file_mib is not None:
            argv.append(f"file={self.limits.file_mib << 10}")
        if self.limits.memory_mib is not None:
            argv.append(f"data={self.limits.memory_mib << 10}")
        if self.network and self.proxies:
            argv.append("proxies")
        return [*argv, "--"]

    def _network(self) -> list[str]:
        if not self.network:
            return ["--unshare-net"]
        files = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt")
        return [
            word
            for name in files
            if (path := Path(name).resolve()).is_file()
            for word in ("--ro-bind", str(path), name)
        ]


def filtered() -> list[str]:
    """What starts bwrap, its arguments behind it, for a sandbox in which others are made.

    Files have no limit: guests' disks stand in it.
    """
    return Sandbox(Path("/"), nested=True, limits=Limits(file_mib=None))._script()


def _filter(nested: bool, io_uring: bool) -> Path:
    """The file with the system call filter; made when it is not there."""
    program = seccomp.filter_program(nested=nested, io_uring=io_uring)
    path = store.directory("sandbox") / f"filter-{store.digest(program.hex())}"
    if not path.is_file() or path.stat().st_size != len(program):
        store.write(path, program)
    return path


def _proc() -> Iterator[str]:
    """What makes /proc: a new one, with what steers the host read-only.

    The kernel gives no new one where parts of the present one are covered, as in a sandbox or a
    container: then it is the present one, read-only, in which other processes are seen but not
    reached, since they are of another user namespace.
    """
    if _is_covered():
        yield from ("--ro-bind", "/proc", "/proc")
        return
    yield from ("--proc", "/proc")
    for name in STEERING:
        if Path("/proc", name).exists():
            yield from ("--ro-bind", f"/proc/{name}", f"/proc/{name}")


@cache
def _is_covered() -> bool:
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    places = [line.split(" ")[4] for line in lines]
    return any(place.startswith("/proc/") and place != _HIDES_NOTHING for place in places)


def _can_disable_user_namespaces() -> bool:
    """Whether bwrap has the option, and can do it; the filter serves without it, too."""
    # it writes to /proc/sys, and refuses when it is setuid
    return not _is_covered() and not _is_setuid() and _version() >= _USERNS


@cache
def _version() -> tuple[int, int]:
    """Of bwrap; (0, 0) when it does not say."""
    try:
        done = commands.ask(["bwrap", "--version"], timeout_s=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _tmpfs(path: str, size: int) -> list[str]:
    limit = ["--size", str(size)] if _version() >= _SIZE else []
    return [*limit, "--tmpfs", path]


def _is_setuid() -> bool:
    program = shutil.which("bwrap")
    return program is not None and bool(Path(program).stat().st_mode & 0o4000)
