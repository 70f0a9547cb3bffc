# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns Ctrl-C, SIGTERM and SIGHUP into KeyboardInterrupt, and remembers which one it was.

So a command cleans up in the same way when it is interrupted, terminated, or loses its terminal.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Handler:
    """The signal handler and its state."""

    def __init__(self) -> None:
        self.number = signal.SIGINT  # the last signal
        self.held = False
        self.pending = False  # a signal came while they were held

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.number = signal.Signals(number)
        if self.held:
            self.pending = True
            return
        raise KeyboardInterrupt


_handler = _Handler()


def catch() -> None:
    """Makes the three signals raise KeyboardInterrupt; SIGHUP stays ignored under nohup."""
    _handler.number = signal.SIGINT
    hangup = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    for number in (signal.SIGINT, signal.SIGTERM, *hangup):
        signal.signal(number, _handler)


def exit_code() -> int:
    """128 + the last signal: a shell's exit status for a process that it killed."""
    return 128 + _handler.number


@contextmanager
def held() -> Iterator[None]:
    """Delays signals to the end of the block: for short work such as saving."""
    if _handler.held:
        yield
        return
    _handler.held = True
    try:
        yield
    finally:
        _handler.held = False
    if _handler.pending:
        _handler.pending = False
        raise KeyboardInterrupt
