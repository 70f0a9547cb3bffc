# SPDX-License-Identifier: GPL-2.0-or-later
"""A sandbox for third-party Python: the test files of a module.

It has a Python, our packages, the module's folder and the named paths, all read-only, and one
writable folder. It has no home, no network except its own loopback, no processes of the host, no
capabilities. Its uid is not 0, even if the host's is, so that a second sandbox can be made inside
for QEMU (see NESTED in kernel.host.sandbox).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from blockyard.kernel.host import commands, sandbox
from blockyard.kernel.host.environment import OURS
from blockyard.kernel.host.installation import INSTALLED, PROJECT

UID = "1000"
# Programs and libraries of the host. NixOS has them in /nix, Guix in /gnu.
SYSTEM = (
    "/usr",
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/sbin",
    "/nix",
    "/gnu",
    "/etc/alternatives",
    "/etc/ld.so.cache",
)
# Folders of a checkout: without .git and records of other runs
PARTS = ("blockyard", "ci", "images", "kernel", "modules", "tests")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")  # of a Python
PROBE_S = 60.0


@dataclass(frozen=True)
class Enclosure:
    """The parts of the host that are visible inside."""

    read_only: Sequence[Path] = ()  # at the same paths as outside
    placed: Mapping[Path, Path] = field(default_factory=dict)  # read-only: path inside → host path
    writable: Mapping[Path, Path] = field(default_factory=dict)  # path inside → host folder
    devices: Sequence[str] = ()  # host device nodes, such as /dev/kvm
    environment: Mapping[str, str] = field(default_factory=dict)

    def argv(self, command: Sequence[str], directory: Path) -> list[str]:
        """The argument list that runs `command` inside, in `directory`."""
        argv = [*sandbox.filtered(), "--die-with-parent"]
        argv += ["--unshare-user", "--uid", UID, "--gid", UID]
        argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "blockyard"]
        argv += ["--unshare-net", "--unshare-cgroup-try", "--cap-drop", "ALL"]
        for name in SYSTEM:
            argv += ["--ro-bind-try", name, name]
        argv += ["--proc", "/proc"]
        for name in sandbox.STEERING:
            argv += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
        # nested sandboxes are built upon /tmp
        argv += ["--dev", "/dev", "--tmpfs", "/tmp"]
        shown = {**{path: path for path in (*_python(), *self.read_only)}, **self.placed}
        binds = [("--ro-bind", source, target) for target, source in shown.items()]
        binds += [("--bind", source, target) for target, source in self.writable.items()]
        # a path is bound after the folders above it
        for option, source, target in sorted(binds, key=lambda bind: len(bind[2].parts)):
            argv += [option, str(source), str(target)]
        for device in self.devices:
            argv += ["--dev-bind", device, device]
        # files in these tmpfs would be memory that no limit counts
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--clearenv"]
        for name, value in {**_environment(), **self.environment}.items():
            argv += ["--setenv", name, value]
        return [*argv, "--chdir", str(directory), "--", *command]


def _python() -> list[Path]:
    """The Python that runs this, our packages, and the program that makes sandboxes."""
    paths = [PROJECT] if INSTALLED else [PROJECT / name for name in PARTS]
    # of `pip install --user`, and folders that .pth files name
    paths += [Path(entry) for entry in sys.path if Path(entry).name in PACKAGE_FOLDERS]
    # not the whole prefix, which may be ~/.local
    paths += [Path(sys.base_prefix, name) for name in ("bin", "lib", "lib64")]
    paths += [Path(sys.prefix), Path(sys.executable).resolve(), _bwrap()]
    system = {Path(name) for name in SYSTEM}
    return [path for path in paths if path.exists() and not system & {path, *path.parents}]


def _bwrap() -> Path:
    return Path(shutil.which("bwrap") or "/usr/bin/bwrap")


def _environment() -> dict[str, str]:
    return {
        "PATH": f"{_bwrap().parent}:{sandbox.PATH}",
        "HOME": "/tmp",
        "LC_ALL": "C.UTF-8",
        "LOGNAME": "blockyard",
        "PYTHONDONTWRITEBYTECODE": "1",
        **OURS,
    }


@cache
def obstacle() -> str:
    """Why QEMU's sandbox cannot be made inside another sandbox; empty when it can.

    It is tried once per process, with the same namespaces and mounts.
    """
    inner = ["bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid"]
    inner += [
        "--unshare-net",
        "--ro-bind",
        "/",
        "/",
        "--ro-bind",
        "/proc",
        "/proc",
        "--dev",
        "/dev",
    ]
    inner += ["--tmpfs", "/tmp", "--", "true"]
    argv = Enclosure().argv(inner, Path("/"))
    try:
        result = commands.ask(argv, timeout_s=PROBE_S)
    except subprocess.TimeoutExpired:
        return f"it did not exit within {PROBE_S:.0f} s"
    except OSError as error:
        return f"bwrap: {error.strerror}"
    return result.stderr.strip() or f"exit code {result.returncode}" if result.returncode else ""
