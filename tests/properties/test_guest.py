# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest may send anything over its consoles and write anything to its kernel log."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.images.console import stream
from blockyard.images.console.console import READY, Console
from blockyard.images.errors import GuestError
from blockyard.images.log import splats
from blockyard.images.log.kernel_log import KernelLog
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.properties.inputs import ODD, changed, contents
from blockyard.tests.unit.fake_agent import FakeGuest

LOGS = contents(PROJECT / "tests" / "unit" / "data", "*.log")
SPLAT_WORDS = (
    b"BUG: ",
    b"Call Trace:",
    b"WARNING: ",
    b"---[ end trace",
    b"Oops: ",
    b"[ cut here ]",
)
MARK = b"<mark>"  # placeholder for the start of a marker, see Script
REQUEST = re.compile(rb"BLOCKYARD (\w+) (\d+) (?:run|log) (\d+) (\d+)\n")


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Iterator[None]:
    """Do not wait after the end of a stream: there is no machine to examine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "END_S", 0.0)
        yield


class Script:
    """A transport that answers the first request with given bytes in pieces, then ends.

    MARK in the answer is replaced by the start of that request's markers.
    """

    def __init__(self, answer: bytes, cuts: list[int]) -> None:
        self._pending = [READY]
        self._answer = answer
        self._cuts = cuts
        self._received = b""

    def send(self, data: bytes, wait_s: float) -> int:
        self._received += data
        if (request := REQUEST.match(self._received)) and self._answer:
            mark = stream.MARK + b"BLOCKYARD %s %s " % (request[1], request[2])
            self._pending += cut(self._answer.replace(MARK, mark), self._cuts)
            self._answer = b""
        return len(data)

    def receive(self, wait_s: float) -> bytes | None:
        return self._pending.pop(0) if self._pending else b""

    def close(self) -> None:
        pass


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    """Split `data` at the given offsets, modulo its length."""
    ends = sorted({offset % (len(data) + 1) for offset in cuts} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[start:end] for start, end in zip(starts, ends, strict=True) if start < end]


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)


@given(st.binary(max_size=3000), st.integers(0, 255), CUTS)
def test_output_does_not_depend_on_its_pieces(output: bytes, code: int, cuts: list[int]) -> None:
    answer = MARK + b"begin\n" + output + MARK + b"end %d %d\n" % (code, len(output))
    console = Console("serial", Script(answer, cuts), FakeGuest())
    console.wait_ready(1)
    result = console.run("true")
    assert (result.exit_code, result.whole()) == (code, output)


FRAMES = tuple(
    frame.replace(b"@", MARK)
    for frame in (
        b"@begin\nhello\n@alive\nworld\n@end 0 12\n",
        b"@begin\n@end 300 0\n",
        b"@end 0 0\n",
        b"@begin\n" + b"x" * 9000,
    )
)


@given(changed(FRAMES, (MARK, MARK + b"end ", b"\x1eBLOCKYARD ")), CUTS)
def test_broken_frames_are_a_guest_error(data: bytes, cuts: list[int]) -> None:
    guest = FakeGuest()
    console = Console("serial", Script(data, cuts), guest)
    console.wait_ready(1)
    try:
        result = console.run("true")
    except GuestError:
        return
    assert 0 <= result.exit_code <= 999


@given(changed(LOGS, SPLAT_WORDS))
def test_splats_are_excerpts_of_the_log(data: bytes) -> None:
    text = data.decode(errors="replace")
    lines = {line[: splats.LINE_LETTERS] for line in text.splitlines()}
    for splat in splats.find(text):
        assert set(splat.excerpt.splitlines()) <= lines
        assert len(splat.excerpt.splitlines()) <= splats.EXCERPT_LINES


@given(st.sampled_from([word for word in (*ODD, *SPLAT_WORDS, b"rcu ", b"task a ", b"A-") if word]))
def test_log_is_searched_in_linear_time(word: bytes) -> None:
    text = (word * (400_000 // len(word))).decode(errors="replace")
    started = time.process_time()
    splats.find(text)
    assert time.process_time() - started < 2


@given(data=changed(LOGS))
def test_shared_log_is_read(log_file: Path, data: bytes) -> None:
    log_file.write_bytes(data)
    log = KernelLog(log_file, shared=True)
    assert log.size == len(data)
    log.tail()
    log.panicked()
    log.unrequested(0, log.size)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "kernel.log"
