# SPDX-License-Identifier: GPL-2.0-or-later
"""Transport of a serial console that shares its port with the kernel log.

For kernels with one serial port and no virtio console. The guest program sends lines of ``~``,
base64 and a newline (`guest/stream.c`). The kernel prints whole lines that begin with ``[``, which
is not in base64's alphabet, so its lines can be removed even in the middle of one of ours.
"""

from __future__ import annotations

import base64
import binascii
import socket
import time

from blockyard.images.console.serial import SocketTransport

# Bytes. The kernel and the guest program print shorter lines; a longer one is not theirs.
LINE_MAX = 1 << 13


class Decoder:
    """Extracts the guest program's bytes from the data of a shared port."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The bytes in all lines of the guest program that `data` completes."""
        held = _without_records(self._held + data)
        # the last line may be incomplete, and so may a kernel line inside it
        *lines, held = held.split(b"\n")
        self._held = held if len(held) <= LINE_MAX else b""
        return b"".join(map(_decoded, lines))


def _without_records(data: bytes) -> bytes:
    """Removes the kernel's lines: each from its bracket to its newline."""
    *lines, last = data.split(b"\n")
    kept = [line + b"\n" if (at := line.find(b"[")) < 0 else line[:at] for line in lines]
    return b"".join([*kept, last])


def _decoded(line: bytes) -> bytes:
    """The bytes of one line; empty for other text (firmware, a user who writes to the port)."""
    _, ours, text = line.rpartition(b"~")
    try:
        return base64.b64decode(text, validate=True) if ours else b""
    except binascii.Error:
        return b""  # the byte count of the answer shows the loss


class SharedTransport(SocketTransport):
    """A `SocketTransport` that returns the guest program's bytes only."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection)
        self._decoder = Decoder()

    def receive(self, wait_s: float) -> bytes | None:
        """See images.console.stream.Transport."""
        deadline = time.monotonic() + wait_s
        while True:
            data = super().receive(max(0.0, deadline - time.monotonic()))
            if not data:
                return data
            if decoded := self._decoder.feed(data):
                return decoded
            if time.monotonic() > deadline:
                return None
