# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest says, over its consoles and in its kernel log, can be anything."""

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
MARK = b"<mark>"  # in what a guest of these tests says
REQUEST = re.compile(rb"BLOCKYARD (\w+) (\d+) (?:run|log) (\d+) (\d+)\n")


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Iterator[None]:
    """A stream that ends is not examined for a second each time: no machine is behind it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "END_S", 0.0)
        yield


class Script:
    """A transport that answers the first request with some bytes, cut at some places, then ends.

    In them MARK stands for what the markers of that request begin with.
    """

    def __init__(self, answer: bytes, places: list[int]) -> None:
        self._waiting = [READY]
        self._answer = answer
        self._places = places
        self._asked = b""

    def send(self, data: bytes, wait_s: float) -> int:
        self._asked += data
        if (request := REQUEST.match(self._asked)) and self._answer:
            mark = stream.MARK + b"BLOCKYARD %s %s " % (request[1], request[2])
            self._waiting += cut(self._answer.replace(MARK, mark), self._places)
            self._answer = b""
        return len(data)

    def receive(self, wait_s: float) -> bytes | None:
        return self._waiting.pop(0) if self._waiting else b""

    def close(self) -> None:
        pass


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """`data` in pieces, cut at some places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    starts = [0, *ends[:-1]]
    return [data[a:b] for a, b in zip(starts, ends, strict=True) if a < b]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=8)


@given(st.binary(max_size=3000), st.integers(0, 255), PLACES)
def test_output_arrives_byte_by_byte_whatever_its_pieces(
    output: bytes, code: int, places: list[int]
) -> None:
    answer = MARK + b"begin\n" + output + MARK + b"end %d %d\n" % (code, len(output))
    console = Console("serial", Script(answer, places), FakeGuest())
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


@given(changed(FRAMES, (MARK, MARK + b"end ", b"\x1eBLOCKYARD ")), PLACES)
def test_a_guest_that_breaks_the_frames(data: bytes, places: list[int]) -> None:
    guest = FakeGuest()
    console = Console("serial", Script(data, places), guest)
    console.wait_ready(1)
    try:
        result = console.run("true")
    except GuestError:
        return
    assert 0 <= result.exit_code <= 999


@given(changed(LOGS, SPLAT_WORDS))
def test_a_kernel_log(data: bytes) -> None:
    text = data.decode(errors="replace")
    lines = {line[: splats.LINE_LETTERS] for line in text.splitlines()}
    for splat in splats.find(text):
        assert set(splat.excerpt.splitlines()) <= lines
        assert len(splat.excerpt.splitlines()) <= splats.EXCERPT_LINES


@given(st.sampled_from([word for word in (*ODD, *SPLAT_WORDS, b"rcu ", b"task a ", b"A-") if word]))
def test_a_log_is_searched_in_linear_time(word: bytes) -> None:
    text = (word * (400_000 // len(word))).decode(errors="replace")
    begun = time.process_time()
    splats.find(text)
    assert time.process_time() - begun < 2


@given(data=changed(LOGS))
def test_a_log_that_the_console_shares(log_file: Path, data: bytes) -> None:
    log_file.write_bytes(data)
    log = KernelLog(log_file, shared=True)
    assert log.size == len(data)
    log.tail()
    log.panicked()
    log.unrequested(0, log.size)


@pytest.fixture(scope="module")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "kernel.log"
