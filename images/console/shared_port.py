# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial console's transport on a port that the kernel log shares.

For kernels that have one serial port and no virtio console. The guest program sends lines of
``~``, base64 and a newline (`guest/stream.c`). The kernel prints whole lines that begin with a
bracket, which base64 has not, so they are taken out wherever they cut in.
"""

from __future__ import annotations

import base64
import binascii
import socket
import time

from blockyard.images.console.serial import SocketTransport

# Longer than any line of the kernel's or the guest program's: what is longer is no line of theirs.
LINE_MAX = 1 << 13


class Decoder:
    """Takes the guest program's bytes out of what a shared port carries."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What of the guest program's came to an end with `data`."""
        held = _without_records(self._held + data)
        # the last line may go on, and so may a line of the kernel's in it
        *lines, held = held.split(b"\n")
        self._held = held if len(held) <= LINE_MAX else b""
        return b"".join(map(_decoded, lines))


def _without_records(data: bytes) -> bytes:
    """What is left without the kernel's lines: each from its bracket to its newline."""
    *lines, last = data.split(b"\n")
    kept = [line + b"\n" if (at := line.find(b"[")) < 0 else line[:at] for line in lines]
    return b"".join([*kept, last])


def _decoded(line: bytes) -> bytes:
    """One line's bytes; none for what is no line of ours (firmware, a user's own writes)."""
    _, ours, text = line.rpartition(b"~")
    try:
        return base64.b64decode(text, validate=True) if ours else b""
    except binascii.Error:
        return b""  # the answer's byte count tells


class SharedTransport(SocketTransport):
    """See images.console.stream.Transport."""

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
