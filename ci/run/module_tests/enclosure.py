# SPDX-License-Identifier: GPL-2.0-or-later
"""A sandbox for Python of others: the test files that come with a module.

Inside there is a Python, our packages, the module's folder and what is named, all of it read-only,
and one folder to write to. There is no home, no network but a loopback of its own, no process of
the host, no capability. The uid is not 0, also where the host's is: a sandbox can then be made
inside, for QEMU (see NESTED in kernel.host.sandbox).
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
# Of the host: programs and libraries. /nix and /gnu are all that NixOS and Guix have of them.
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
# Of a checkout: no records of other runs, no .git
PARTS = ("blockyard", "ci", "images", "kernel", "modules", "tests")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")  # of a Python
PROBE_S = 60.0


@dataclass(frozen=True)
class Enclosure:
    """What the Python inside sees of the host."""

    read_only: Sequence[Path] = ()  # under the names that they have outside
    placed: Mapping[Path, Path] = field(default_factory=dict)  # the same, name inside → host path
    writable: Mapping[Path, Path] = field(default_factory=dict)  # name inside → folder of the host
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
        binds = [("--ro-bind", source, place) for place, source in shown.items()]
        binds += [("--bind", source, place) for place, source in self.writable.items()]
        # what stands below another place is bound after it
        for how, source, place in sorted(binds, key=lambda bind: len(bind[2].parts)):
            argv += [how, str(source), str(place)]
        for device in self.devices:
            argv += ["--dev-bind", device, device]
        # memory that nobody would count is no place to write to
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--clearenv"]
        for name, value in {**_environment(), **self.environment}.items():
            argv += ["--setenv", name, value]
        return [*argv, "--chdir", str(directory), "--", *command]


def _python() -> list[Path]:
    """The Python that runs this, our packages, and the program that makes sandboxes."""
    places = [PROJECT] if INSTALLED else [PROJECT / name for name in PARTS]
    # with `pip install --user`, and where a .pth file names other folders
    places += [Path(entry) for entry in sys.path if Path(entry).name in PACKAGE_FOLDERS]
    # not all of the prefix: that may be ~/.local
    places += [Path(sys.base_prefix, name) for name in ("bin", "lib", "lib64")]
    places += [Path(sys.prefix), Path(sys.executable).resolve(), _bwrap()]
    system = {Path(name) for name in SYSTEM}
    return [one for one in places if one.exists() and not system & {one, *one.parents}]


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
    """Why QEMU's sandbox cannot be made inside another one; empty when it can.

    Tried once per process, with what it takes: namespaces, mounts, a network.
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
        tried = commands.ask(argv, timeout_s=PROBE_S)
    except subprocess.TimeoutExpired:
        return f"no end after {PROBE_S:.0f} s"
    except OSError as error:
        return f"bwrap: {error.strerror}"
    return tried.stderr.strip() or f"exit code {tried.returncode}" if tried.returncode else ""
