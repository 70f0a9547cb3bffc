# SPDX-License-Identifier: GPL-2.0-or-later
"""Readers of guest output and checkouts run in linear time.

A regular expression that backtracks would take minutes to hours on one of these repeated words.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from blockyard.images.console.console import READY
from blockyard.images.console.shared_port import Decoder
from blockyard.images.console.stream import MARK
from blockyard.images.log import kernel_log, splats
from blockyard.images.machine import diagnose
from blockyard.modules.disk import named_error
from blockyard.tests.blktests import checkout, results
from blockyard.tests.harness.upstream import UpstreamTest

LENGTH = 100_000
LIMIT_S = 10.0

WORDS = (
    b"[",
    b"\n",
    b" ",
    b"~",
    b"a",
    MARK,
    READY,
    b"rcu",
    b"BUG: ",
    b"WARNING: possible ",
    b"INFO: task ",
    b"vda: rw=",
    b"erofs (device vda): ",
    b"[not run]  ",
    b"    a  ",
    b"/sys/kernel/config/a/b/c",
    b"Writing a",
    b"function ",
    b"[    1.0] ",
    b"NMI watchdog: ",
    b"-safe -> a",
)


def _decode(text: bytes) -> object:
    decoder = Decoder()
    return [decoder.feed(text), decoder.feed(text)]


def _results(text: bytes) -> object:
    printed = text.decode(errors="replace")
    part = results.Part("nodev", "fail", "output", output=printed)
    parsed = results.Results("block/001", (part,), "", printed, 0)
    return results.judge(parsed, UpstreamTest("block/001"), "", "rnull", ("size",))


READERS: dict[str, Callable[[bytes], object]] = {
    "shared port": _decode,
    "kernel log": lambda text: kernel_log.without_stamps(text.decode(errors="replace")),
    "damage": kernel_log._DAMAGE.search,
    "splats": lambda text: splats.find(text.decode(errors="replace")),
    "registers": lambda text: diagnose._RIP.findall(text.decode(errors="replace")),
    "stacks": lambda text: diagnose._shortened(text.decode(errors="replace")),
    "errno": lambda text: named_error(text.decode(errors="replace")),
    "checkout": lambda text: checkout._ON_A_DISK.search(text.decode(errors="replace")),
    "blktests": _results,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_long_text_is_read_in_linear_time(reader: str, word: bytes) -> None:
    text = word * (LENGTH // len(word))
    started = time.monotonic()
    READERS[reader](text)
    READERS[reader](text + b"\n")
    assert time.monotonic() - started < LIMIT_S
