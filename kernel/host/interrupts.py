# SPDX-License-Identifier: GPL-2.0-or-later
"""Ctrl-C, SIGTERM and SIGHUP: one KeyboardInterrupt for all, and which of them it was.

So a terminated command, or one whose terminal went away, cleans up as an interrupted one does.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Handler:
    """What the signals call."""

    def __init__(self) -> None:
        self.number = signal.SIGINT  # the last that came
        self.held = False
        self.waiting = False  # one came while they were held

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = signal.Signals(number)
        if self.held:
            self.waiting = True
            return
        raise KeyboardInterrupt


_handler = _Handler()


def catch() -> None:
    """From now on the three raise KeyboardInterrupt; nohup keeps the hang-up off."""
    _handler.number = signal.SIGINT
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        signal.signal(number, _handler)


def exit_code() -> int:
    """What a shell says of a process that the last signal ended."""
    return 128 + _handler.number


@contextmanager
def held() -> Iterator[None]:
    """A signal that comes in the block raises at its end: for short work, such as saving."""
    if _handler.held:
        yield
        return
    _handler.held = True
    try:
        yield
    finally:
        _handler.held = False
    if _handler.waiting:
        _handler.waiting = False
        raise KeyboardInterrupt
