# SPDX-License-Identifier: GPL-2.0-or-later
"""Transport of the serial console: a socket with QEMU at its other end."""

from __future__ import annotations

import select
import socket
import time

from blockyard.images.console.stream import CHUNK


class SocketTransport:
    """A connected stream socket to a QEMU character device."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection

    def send(self, data: bytes, wait_s: float) -> int:
        """See images.console.stream.Transport."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            select.select([], [self._socket], [], wait_s)
            return 0
        except OSError:  # QEMU has ended: the watch reports it
            time.sleep(wait_s)
            return 0

    def receive(self, wait_s: float) -> bytes | None:
        """See images.console.stream.Transport."""
        try:
            return self._socket.recv(CHUNK)
        except BlockingIOError:
            pass
        except OSError:
            return b""
        if not select.select([self._socket], [], [], wait_s)[0]:
            return None
        try:
            return self._socket.recv(CHUNK)
        except OSError:
            return b""

    def close(self) -> None:
        """See images.console.stream.Transport."""
        self._socket.close()
