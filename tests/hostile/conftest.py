# SPDX-License-Identifier: GPL-2.0-or-later
"""Targets of the attacks on this host, and how to run them as root or as an ordinary user.

`./inv check --hostile` runs all of these tests, `./inv check` only those marked `quick`.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from blockyard.kernel.host import sandbox as host_sandbox
from blockyard.kernel.host.debian import ToolRoot, tool_root
from blockyard.kernel.host.sandbox import Sandbox

HERE = Path(__file__).parent
USER = 54321  # a user ID that no host uses: it owns no files and no processes
SECRET = "blockyard-secret-of-the-host"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: also runs in a plain ./inv check")


class Result(msgspec.Struct, frozen=True):
    """One attack, as attacks.py reports it."""

    attack: str
    tried: str
    succeeded: bool
    outcome: str


@dataclass(frozen=True)
class Targets:
    """What the attacks try to reach on the host."""

    values: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=lambda: {"MY_TOKEN": SECRET})

    def write(self, folder: Path, output: str) -> None:
        """Write the targets for attacks.py; output: the output folder inside the sandbox."""
        (folder / "targets").write_text(json.dumps({**self.values, "output": output}))


@pytest.fixture
def tools() -> ToolRoot:
    return tool_root()


@pytest.fixture
def targets(tmp_path: Path) -> Iterator[Targets]:
    """A file, a process, a port and two sockets of the host."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    abstract = f"blockyard-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.socket(socket.AF_UNIX) as named,
        socket.socket(socket.AF_UNIX) as hidden,
    ):
        hidden.bind("\0" + abstract)
        hidden.listen()
        path = tmp_path / "socket"
        named.bind(str(path))
        named.listen()
        yield Targets(
            {
                "file": str(secret),
                "process": os.getpid(),
                "port": server.getsockname()[1],
                "abstract": abstract,
                "socket": str(path),
                "secret": SECRET[::-1],
            }
        )


@pytest.fixture(
    params=[
        pytest.param("caller", marks=pytest.mark.quick),
        pytest.param("user", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root")),
    ]
)
def user(request: pytest.FixtureRequest) -> str:
    """The user who runs bwrap: `caller`, which is root in CI, or `user`, an ordinary one."""
    name: str = request.param
    return name


def run_inside(
    sandbox: Sandbox, command: list[str], user: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in a sandbox, as the caller or as an ordinary user."""
    prefix: list[str] = []
    if user == "user":
        sandbox, prefix = _for_user(sandbox, folder / "user")
    argv = sandbox.argv(command)
    if prefix:  # the filter is in the caller's cache, which the user cannot read
        public = shutil.copyfile(argv[1], folder / "user" / "filter")
        public.chmod(0o644)
        argv[1] = str(public)
    return subprocess.run(
        [*prefix, *argv],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        env={**os.environ, **environment},
    )


def _for_user(sandbox: Sandbox, folder: Path) -> tuple[Sandbox, list[str]]:
    """The sandbox with paths that the user can reach, and the command prefix that becomes the user.

    The caller's cache is closed to others, so its folders are bound elsewhere in a mount namespace.
    """
    folder.mkdir()
    for parent in (folder, *folder.parents):
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    lines, moved = ["set -e"], {}
    bound = {sandbox.root, *sandbox.read_only.values(), *sandbox.writable.values()}
    for number, path in enumerate(sorted(bound)):
        target = folder / str(number)
        target.mkdir() if path.is_dir() else target.touch()
        lines.append(f"mount --bind {path} {target}")
        moved[path] = target
    for path in sandbox.writable.values():
        for entry in (path, *path.rglob("*")):
            os.chown(entry, USER, USER, follow_symlinks=False)
    ids = f"--reuid {USER} --regid {USER} --clear-groups"
    lines.append(f'exec setpriv {ids} --bounding-set=-all --inh-caps=-all "$@"')
    reachable = replace(
        sandbox,
        root=moved[sandbox.root],
        read_only={name: moved[path] for name, path in sandbox.read_only.items()},
        writable={name: moved[path] for name, path in sandbox.writable.items()},
    )
    return reachable, ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh"]


def results(report: Path) -> list[Result]:
    """Read the report of attacks.py."""
    lines = report.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Result) for line in lines]


def show(attacks: list[Result], title: str) -> None:
    """Print each attack and what stopped it; pytest shows it with -s or after a failure."""
    for attack in attacks:
        verdict = "SUCCEEDED" if attack.succeeded else "stopped"
        print(f"{title:14} {verdict:9} {attack.tried}: {attack.outcome}")


def weak_argv(sandbox: Sandbox, command: list[str]) -> list[str]:
    """The argv of bwrap without our hardening, so that attacks succeed."""
    argv = sandbox.argv(command)
    argv = ["bwrap", *argv[argv.index("--") + 1 :]]
    for option in (["--cap-drop", "ALL"], ["--disable-userns"]):
        if option[0] in argv:
            index = argv.index(option[0])
            del argv[index : index + len(option)]
    for name in host_sandbox.STEERING:
        path = f"/proc/{name}"
        if path in argv:
            index = argv.index(path)
            del argv[index - 1 : index + 2]
    return argv
