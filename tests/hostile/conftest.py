# SPDX-License-Identifier: GPL-2.0-or-later
"""What the attacks aim at on this host, and running them as root or as an ordinary user.

`./inv check --hostile` runs all; `./inv check` those marked `quick`.
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
USER = 54321  # an ordinary user that no host has: nothing is his, and he has no process
SECRET = "blockyard-secret-of-the-host"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: runs in ./inv check, too")


class Result(msgspec.Struct, frozen=True):
    """One attack, as attacks.py reports it."""

    attack: str
    tried: str
    succeeded: bool
    outcome: str


@dataclass(frozen=True)
class Targets:
    """What of the host is to be reached."""

    values: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=lambda: {"MY_TOKEN": SECRET})

    def write(self, folder: Path, output: str) -> None:
        """For attacks.py: the targets, and what stands for its output folder inside."""
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
    """Who runs bwrap: the caller, which is root in CI, or an ordinary user."""
    name: str = request.param
    return name


def run_inside(
    sandbox: Sandbox, command: list[str], user: str, folder: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command in a sandbox, as the caller or as an ordinary user."""
    before: list[str] = []
    if user == "user":
        sandbox, before = _for_user(sandbox, folder / "user")
    argv = sandbox.argv(command)
    if before:  # the filter stands in the caller's cache
        public = shutil.copyfile(argv[1], folder / "user" / "filter")
        public.chmod(0o644)
        argv[1] = str(public)
    return subprocess.run(
        [*before, *argv],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=300,
        env={**os.environ, **environment},
    )


def _for_user(sandbox: Sandbox, folder: Path) -> tuple[Sandbox, list[str]]:
    """The sandbox with all paths where the user can reach them, and what becomes the user.

    The caller's cache is closed to others, so a mount namespace has its folders elsewhere, too.
    """
    folder.mkdir()
    for parent in (folder, *folder.parents):
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    lines, places = ["set -e"], {}
    bound = {sandbox.root, *sandbox.read_only.values(), *sandbox.writable.values()}
    for number, path in enumerate(sorted(bound)):
        place = folder / str(number)
        place.mkdir() if path.is_dir() else place.touch()
        lines.append(f"mount --bind {path} {place}")
        places[path] = place
    for path in sandbox.writable.values():
        for one in (path, *path.rglob("*")):
            os.chown(one, USER, USER, follow_symlinks=False)
    who = f"--reuid {USER} --regid {USER} --clear-groups"
    lines.append(f'exec setpriv {who} --bounding-set=-all --inh-caps=-all "$@"')
    moved = replace(
        sandbox,
        root=places[sandbox.root],
        read_only={name: places[path] for name, path in sandbox.read_only.items()},
        writable={name: places[path] for name, path in sandbox.writable.items()},
    )
    return moved, ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh"]


def results(report: Path) -> list[Result]:
    """What attacks.py reported."""
    lines = report.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Result) for line in lines]


def show(found: list[Result], who: str) -> None:
    """Prints each attack with what it tried and what stopped it (pytest -s, or a failure)."""
    for one in found:
        verdict = "SUCCEEDED" if one.succeeded else "stopped"
        print(f"{who:14} {verdict:9} {one.tried}: {one.outcome}")


def old_argv(sandbox: Sandbox, command: list[str]) -> list[str]:
    """bwrap as it was called before: what the attacks need to succeed."""
    argv = sandbox.argv(command)
    argv = ["bwrap", *argv[argv.index("--") + 1 :]]
    for words in (["--cap-drop", "ALL"], ["--disable-userns"]):
        if words[0] in argv:
            at = argv.index(words[0])
            del argv[at : at + len(words)]
    for name in host_sandbox.STEERING:
        place = f"/proc/{name}"
        if place in argv:
            at = argv.index(place)
            del argv[at - 1 : at + 2]
    return argv
