# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a program in a root directory other than the host's, with bubblewrap.

The root is read-only. Files of the host are bound below ``/mnt`` by name, so that paths are the
same on every machine. There is no network unless it is requested, and everything inside ends with
its parent (bwrap's --die-with-parent).

The program is uid 0 inside and the caller's user outside. If the caller is root, the kernel treats
the program in many places as the host's root. So it has no capability, the controls of the host in
/proc are read-only, and system calls that it does not need are denied (`seccomp`); see
docs/security.md. `kernel/scripts/sandbox` starts bwrap with that filter and with limits.
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

BIND = "/mnt"  # every bound path is below it

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
}
# Files of /proc that uid 0 may write without any capability, and kcore, the kernel's memory.
STEERING: tuple[str, ...] = ("acpi", "bus", "dynamic_debug", "fs", "irq", "kcore", "mtrr", "scsi")
STEERING += ("sys", "sysrq-trigger")
# systemd mounts over this directory, which is always empty: nothing is hidden
_HIDES_NOTHING = "/proc/sys/fs/binfmt_misc"
_SMALL = 16 << 20  # bytes of a tmpfs that only holds mount points
# The first versions of bwrap with --disable-userns and --size.
_USERNS, _SIZE = (0, 8), (0, 7)


@dataclass(frozen=True)
class Sandbox:
    """A root directory, what is bound into it, and what the program inside may do."""

    root: Path  # an unpacked Debian root
    read_only: Mapping[str, Path] = field(default_factory=dict)  # name below /mnt → host path
    writable: Mapping[str, Path] = field(default_factory=dict)  # name below /mnt → host path
    devices: Sequence[str] = ()  # host device nodes, such as /dev/kvm
    network: bool = False
    proxies: bool = True  # with the network: pass the user's proxy variables
    environment: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[Path] = ()  # folders of the root that are empty inside
    shown: Sequence[Path] = ()  # paths below hidden folders that are visible nevertheless
    nested: bool = False  # allow sandboxes inside; the user is then 1000 and not 0
    io_uring: bool = False  # allow io_uring's system calls
    supervised: bool = False  # count CPU time and limit processes; the root must have bash
    limits: Limits = field(default_factory=Limits)

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment inside."""
        return {**_ENVIRONMENT, **self.environment}

    def argv(self, command: Sequence[str], *, directory: str = "/") -> list[str]:
        """The argument list that runs `command` inside, in `directory`."""
        user = "1000" if self.nested else "0"  # mapping uid 0 again would need CAP_SETFCAP
        argv = [*self._script(), "--die-with-parent"]
        argv += ["--unshare-user", "--uid", user, "--gid", user, "--cap-drop", "ALL"]
        if not self.nested and _can_disable_user_namespaces():
            argv.append("--disable-userns")
        argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "blockyard"]
        argv += ["--ro-bind", str(self.root), "/", *_proc(), "--dev", "/dev"]
        for folder in (*map(str, self.hidden), BIND):
            argv += _tmpfs(folder, _SMALL)
        for folder in ("/tmp", "/dev/shm"):
            argv += _tmpfs(folder, self.limits.tmpfs_mib << 20)
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
    """The command that starts bwrap, without bwrap's arguments, for a sandbox with others inside.

    File sizes are not limited, since it holds the disks of guests.
    """
    return Sandbox(Path("/"), nested=True, limits=Limits(file_mib=None))._script()


def _filter(nested: bool, io_uring: bool) -> Path:
    """The file with the system call filter; made if needed."""
    program = seccomp.filter_program(nested=nested, io_uring=io_uring)
    path = store.directory("sandbox") / f"filter-{store.digest(program.hex())}"
    if not path.is_file() or path.stat().st_size != len(program):
        store.write(path, program)
    return path


def _proc() -> Iterator[str]:
    """bwrap's arguments for /proc: a new one, in which the controls of the host are read-only.

    The kernel refuses a new procfs where parts of the present one are mounted over, as in a sandbox
    or a container. Then the present one is bound read-only: other processes are visible but cannot
    be accessed, since they are in another user namespace.
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
    mounts = [line.split(" ")[4] for line in lines]
    return any(path.startswith("/proc/") and path != _HIDES_NOTHING for path in mounts)


def _can_disable_user_namespaces() -> bool:
    """Whether bwrap's --disable-userns works here; without it the filter alone has to do."""
    # bwrap writes to /proc/sys for it, and refuses it when bwrap is setuid
    return not _is_covered() and not _is_setuid() and _version() >= _USERNS


@cache
def _version() -> tuple[int, int]:
    """The version of bwrap; (0, 0) when it is unknown."""
    try:
        done = commands.ask(["bwrap", "--version"], timeout_s=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    match = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _tmpfs(path: str, size: int) -> list[str]:
    limit = ["--size", str(size)] if _version() >= _SIZE else []
    return [*limit, "--tmpfs", path]


def _is_setuid() -> bool:
    program = shutil.which("bwrap")
    return program is not None and bool(Path(program).stat().st_mode & 0o4000)
