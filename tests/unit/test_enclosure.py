# SPDX-License-Identifier: GPL-2.0-or-later
"""The sandbox for Python code of others; each attack is tried for real."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.ci.run.module_tests import enclosure
from blockyard.ci.run.module_tests.enclosure import Enclosure
from blockyard.kernel.host.settings import PROJECT

TRY = """
import ctypes, os, signal, socket, sys
def attack():
{body}
try:
    attack()
except OSError as error:
    print("stopped:", error.strerror)
else:
    print("succeeded")
"""


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """Port of a server on the host's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def inside(code: str, **options: object) -> str:
    """Output of Python code that runs inside."""
    argv = Enclosure(**options).argv([sys.executable, "-I", "-c", code], Path("/"))  # type: ignore[arg-type]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def attack(*lines: str) -> str:
    return inside(TRY.format(body="\n".join(f"    {line}" for line in lines)))


@pytest.mark.parametrize(
    "path",
    [
        PROJECT / "ci" / "run.py",
        PROJECT / "ci" / "new",
        Path(sys.prefix) / "new",
        Path(sys.executable).resolve(),
        Path("/usr/bin/new"),
        Path("/etc/new"),
        Path("/new"),
        Path("/dev/shm/new"),
        Path("/proc/sys/kernel/core_pattern"),
        Path("/proc/sysrq-trigger"),
    ],
    ids=str,
)
def test_files_outside_are_not_writable(path: Path) -> None:
    assert attack(f"open({str(path)!r}, 'ab')").startswith("stopped: ")


def test_tmp_is_private(tmp_path: Path) -> None:
    mine = Path("/tmp", f"blockyard-{secrets.token_hex(8)}")
    seen = inside(f"import os; open({str(mine)!r}, 'w'); print(os.listdir('/tmp'))")
    assert seen == f"['{mine.name}']" or tmp_path.is_relative_to("/tmp")
    assert not mine.exists()


@pytest.mark.parametrize(
    "path",
    [Path.home() / ".ssh", Path("/etc/shadow"), PROJECT / ".git", Path("/var"), Path("/run")],
)
def test_private_folders_are_hidden(path: Path) -> None:
    assert attack(f"os.stat({str(path)!r})") == "stopped: No such file or directory"


def test_only_python_is_visible_in_the_home() -> None:
    shown = {Path(sys.prefix), Path(sys.base_prefix), PROJECT}
    allowed = {path.relative_to(Path.home()).parts[0] for path in shown if _below_home(path)}
    code = f"import os; print(*os.listdir({str(Path.home())!r}))"
    try:
        assert set(inside(code).split()) <= allowed
    except AssertionError as error:
        assert "No such file" in str(error)


def _below_home(path: Path) -> bool:
    return path != Path.home() and path.is_relative_to(Path.home())


def test_servers_of_the_host_are_unreachable(server: int) -> None:
    assert attack(f"socket.create_connection(('127.0.0.1', {server}), 2)").startswith("stopped: ")


def test_loopback_is_private() -> None:
    code = "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    assert attack(code) == "succeeded"


def test_processes_of_the_host_cannot_be_killed() -> None:
    assert attack(f"os.kill({os.getpid()}, 0)") == "stopped: No such process"


@pytest.mark.parametrize(
    "call",
    [
        f"mount(None, b'{path}', None, {flags}, None)"
        for path in ("/usr", PROJECT / "ci", "/")
        for flags in (0x1020,)  # MS_REMOUNT | MS_BIND: writable again
    ]
    + ["umount2(b'/dev', 2)", "sethostname(b'mine', 4)", "syscall(250, 0, 0, 0, 0, 0)"],  # keyctl
)
def test_capabilities_are_dropped(call: str) -> None:
    lines = [
        "libc = ctypes.CDLL(None, use_errno=True)",
        f"if libc.{call}: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))",
    ]
    assert attack(*lines) == "stopped: Operation not permitted"


def test_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    assert "secret" not in inside("import os; print(dict(os.environ))")


def test_placed_folders_are_readable_and_writable_ones_writable(tmp_path: Path) -> None:
    given, taken = tmp_path / "given [x]::y", tmp_path / "taken, $HOME"
    for folder in (given, taken):
        folder.mkdir()
    (given / "text").write_text("hello")
    code = "open('/mnt/out/copy', 'w').write(open('/mnt/in/text').read())"
    inside(code, placed={Path("/mnt/in"): given}, writable={Path("/mnt/out"): taken})
    assert (taken / "copy").read_text() == "hello"
    with pytest.raises(AssertionError, match="Read-only file system"):
        inside("open('/mnt/in/text', 'w')", placed={Path("/mnt/in"): given})


def test_guests_can_be_started_inside() -> None:
    """This host allows nested sandboxes; otherwise `./inv test` names the obstacle."""
    assert enclosure.obstacle() == ""
