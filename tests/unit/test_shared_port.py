# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest program's bytes between the kernel's lines, on one port."""

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


def sent(data: bytes) -> bytes:
    """As guest/stream.c sends it."""
    pieces = [data[at : at + 768] for at in range(0, len(data), 768)]
    return b"".join(b"~" + base64.b64encode(piece) + b"\n" for piece in pieces)


def decoded(stream: bytes, size: int) -> bytes:
    decoder = Decoder()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    return b"".join(decoder.feed(piece) for piece in pieces)


@pytest.mark.parametrize("size", [1, 7, 1000, 1 << 16])
class TestDecoder:
    def test_bytes_come_as_they_were(self, size: int) -> None:
        assert decoded(sent(DATA), size) == DATA

    def test_lines_of_the_kernel_cut_in_anywhere(self, size: int) -> None:
        stream = sent(DATA)
        for at in sorted(random.Random(2).sample(range(len(stream)), 40), reverse=True):
            stream = stream[:at] + RECORD + stream[at:]
        assert decoded(stream, size) == DATA

    def test_what_firmware_prints_is_no_data(self, size: int) -> None:
        assert decoded(b"SeaBIOS (version 1)\r\n\r\n" + RECORD + sent(b"abc"), size) == b"abc"


def test_bytes_without_an_end_are_not_kept() -> None:
    decoder = Decoder()
    for _ in range(20):
        decoder.feed(b"[" * 1000)
    assert len(decoder._held) <= LINE_MAX
    assert decoder.feed(b"\n" + sent(b"abc")) == b"abc"


def test_what_never_is_a_line_does_not_hold_the_reader() -> None:
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            while not over.is_set():
                theirs.send(b"x" * 64)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        begun = time.monotonic()
        assert SharedTransport(ours).receive(0.2) is None
        assert time.monotonic() - begun < 5
    finally:
        over.set()
        ours.close()
        writer.join()
        theirs.close()


def test_a_line_that_was_damaged_is_missing() -> None:
    good = sent(b"abc")
    assert decoded(good[:3] + b"?" + good[3:] + sent(b"def"), 100) == b"def"


def test_the_kernel_log_is_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "kernel.log"
    line = sent(b"abc")
    path.write_bytes(RECORD + line[:4] + RECORD + line[4:] + RECORD)
    assert KernelLog(path, shared=True).text() == RECORD.decode().replace("\r", "") * 3
