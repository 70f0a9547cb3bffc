# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's qemu.cmdline boots the same guest when it is pasted into a shell."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

from blockyard.images.console.console import READY
from blockyard.images.machine.by_hand import CMDLINE, CONSOLE_SOCKET
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host.process import reaped

UP_S = 120.0  # time limit; a boot takes 3 s on an idle host


def connected(folder: Path, deadline: float) -> socket.socket:
    """The console's socket, in the temporary folder that the pasted lines create."""
    while time.monotonic() < deadline:
        for path in folder.glob(f"tmp.*/{CONSOLE_SOCKET}"):
            console = socket.socket(socket.AF_UNIX)
            try:
                console.connect(str(path))
                return console
            except ConnectionRefusedError:  # bound, but not yet listening
                console.close()
        time.sleep(0.05)
    raise AssertionError("QEMU created no socket")


def test_pasted_qemu_cmdline_boots_the_same_guest(shared_guest: Machine, tmp_path: Path) -> None:
    lines = (shared_guest.directory / CMDLINE).read_text()
    terminal = tmp_path / "terminal"
    with open(terminal, "wb") as stdout:
        process = subprocess.Popen(
            ["sh", "-c", lines],
            env={**os.environ, "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            start_new_session=True,
        )
    deadline = time.monotonic() + UP_S
    with reaped(process), connected(tmp_path, deadline) as console:
        console.settimeout(UP_S)
        received = b""
        while READY not in received and (data := console.recv(1000)):
            received += data
    assert READY in received
    release = shared_guest.setup.kernel.info.release
    assert f"Linux version {release} " in terminal.read_text(errors="replace")
