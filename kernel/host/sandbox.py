# SPDX-License-Identifier: GPL-2.0-or-later
"""Running a program inside a root directory that is not the host's, with bubblewrap.

The root is read-only. What a program may see of the host is bound below ``/mnt`` by name, so the
same work has the same paths on every machine. There is no network unless it is asked for, and
everything inside ends when its parent does (bwrap's --die-with-parent).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BIND = "/mnt"  # every bound path stands below it
# set inside ci.enclosure's sandbox, where the kernel mounts no other /proc: the outer one is shown
NESTED = "BLOCKYARD_NESTED"

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENVIRONMENT = {
    "PATH": PATH,
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
}
_PROXIES = ("http_proxy", "https_proxy", "no_proxy")  # what apt looks at


@dataclass(frozen=True)
class Sandbox:
    """A root directory and what is bound into it."""

    root: Path  # an unpacked Debian root
    read_only: Mapping[str, Path] = field(default_factory=dict)  # name below /mnt → host path
    writable: Mapping[str, Path] = field(default_factory=dict)  # name below /mnt → host path
    devices: Sequence[str] = ()  # host device nodes, such as /dev/kvm
    network: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[Path] = ()  # folders of the root that are empty inside,
    shown: Sequence[Path] = ()  # and what of the root is seen below them nevertheless

    def argv(self, command: Sequence[str], *, directory: str = "/") -> list[str]:
        """The argument list that runs `command` inside, in `directory`."""
        argv = ["bwrap", "--die-with-parent", "--unshare-user", "--uid", "0", "--gid", "0"]
        argv += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--hostname", "blockyard"]
        argv += ["--ro-bind", str(self.root), "/", *_proc(), "--dev", "/dev"]
        for path in (*self.hidden, "/tmp", BIND):
            argv += ["--tmpfs", str(path)]
        for path in self.shown:
            argv += ["--ro-bind", str(path), str(path)]
        for name, path in self.read_only.items():
            argv += ["--ro-bind", str(path), f"{BIND}/{name}"]
        for name, path in self.writable.items():
            argv += ["--bind", str(path), f"{BIND}/{name}"]
        for device in self.devices:
            argv += ["--dev-bind", device, device]
        argv += self._network()
        argv.append("--clearenv")
        proxies = {name: os.environ[name] for name in _PROXIES if name in os.environ}
        inherited = proxies if self.network else {}
        for name, value in {**_ENVIRONMENT, **inherited, **self.environment}.items():
            argv += ["--setenv", name, value]
        return [*argv, "--chdir", directory, "--", *command]

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


def _proc() -> list[str]:
    return ["--ro-bind", "/proc", "/proc"] if NESTED in os.environ else ["--proc", "/proc"]
