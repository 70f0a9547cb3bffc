# SPDX-License-Identifier: GPL-2.0-or-later
"""A running QEMU process and our ends of its ports."""

from __future__ import annotations

import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blockyard.images.console import ssh

QEMU_LOG = "qemu.log"  # QEMU's own output, in the guest's folder


@dataclass(frozen=True)
class Started:
    """A running QEMU and our ends of its ports."""

    process: subprocess.Popen[bytes]
    console: socket.socket
    events: socket.socket  # QMP, for events only
    monitor: socket.socket  # QMP, for commands
    shell: socket.socket | None
    sysrq: int  # file descriptor whose data arrives at the kernel log's port
    keys: ssh.Keys | None
    ssh_port: int | None
