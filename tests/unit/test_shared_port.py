# SPDX-License-Identifier: GPL-2.0-or-later
"""A serial port that the guest program shares with the kernel log."""

from __future__ import annotations

import base64
import contextlib
import random
import socket
import threading
import time
from pathlib import Path

import pytest

from blockyard.images.console.shared_port import LINE_MAX, Decoder, SharedTransport
from blockyard.images.log.kernel_log import KernelLog

RECORD = b"[    1.234567] nvme nvme0: 2/0/0 default/read/poll queues ~\r\n"
DATA = random.Random(1).randbytes(4000)


def encoded(data: bytes) -> bytes:
    """Encode like guest/stream.c."""
    pieces = [data[at : at + 768] for at in range(0, len(data), 768)]
    return b"".join(b"~" + base64.b64encode(piece) + b"\n" for piece in pieces)


def decoded(stream: bytes, size: int) -> bytes:
    decoder = Decoder()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return b"".join(decoder.feed(piece) for piece in pieces)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 16])
class TestDecoder:
    def test_round_trip(self, size: int) -> None:
        assert decoded(encoded(DATA), size) == DATA

    def test_kernel_lines_may_interrupt_anywhere(self, size: int) -> None:
        stream = encoded(DATA)
        for at in sorted(random.Random(2).sample(range(len(stream)), 40), reverse=True):
            stream = stream[:at] + RECORD + stream[at:]
        assert decoded(stream, size) == DATA

    def test_firmware_output_is_ignored(self, size: int) -> None:
        assert decoded(b"SeaBIOS (version 1)\r\n\r\n" + RECORD + encoded(b"abc"), size) == b"abc"


def test_endless_line_is_not_buffered() -> None:
    decoder = Decoder()
    for _ in range(20):
        decoder.feed(b"[" * 1000)
    assert len(decoder._held) <= LINE_MAX
    assert decoder.feed(b"\n" + encoded(b"abc")) == b"abc"


def test_endless_line_does_not_block_the_reader() -> None:
    host, guest = socket.socketpair()
    stop = threading.Event()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            while not stop.is_set():
                guest.send(b"x" * 64)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        started = time.monotonic()
        assert SharedTransport(host).receive(0.2) is None
        assert time.monotonic() - started < 5
    finally:
        stop.set()
        host.close()
        writer.join()
        guest.close()


def test_damaged_line_is_dropped() -> None:
    good = encoded(b"abc")
    assert decoded(good[:3] + b"?" + good[3:] + encoded(b"def"), 100) == b"def"


def test_kernel_log_is_the_remaining_text(tmp_path: Path) -> None:
    path = tmp_path / "kernel.log"
    line = encoded(b"abc")
    path.write_bytes(RECORD + line[:4] + RECORD + line[4:] + RECORD)
    assert KernelLog(path, shared=True).text() == RECORD.decode().replace("\r", "") * 3
