# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command of `./inv boot --run` gets on its standard input."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest

from blockyard.ci.commands import stdin
from blockyard.kernel.host.errors import UsageError


class Pipe:
    """Standard input as a pipe."""

    def __init__(self) -> None:
        self.theirs, self.ours = os.pipe()

    def fileno(self) -> int:
        return self.theirs

    def write(self, data: bytes) -> None:
        os.write(self.ours, data)

    def end(self) -> None:
        if self.ours >= 0:
            os.close(self.ours)
            self.ours = -1


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdin", pipe)
    yield pipe
    pipe.end()


def data() -> bytes:
    coming = stdin.begin()
    assert coming is not None
    return coming.data()


def test_what_is_piped_in(pipe: Pipe) -> None:
    pipe.write(bytes(range(256)))
    pipe.end()
    assert data() == bytes(range(256))


def test_what_comes_late(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.write(b"one\n")
    coming = stdin.begin()
    pipe.write(b"two\n")
    pipe.end()
    assert coming is not None
    assert coming.data() == b"one\ntwo\n"


def test_nothing_is_nothing(pipe: Pipe) -> None:
    pipe.end()
    assert data() == b""


def test_a_pipe_that_is_silent_is_not_waited_for(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stdin, "FIRST_S", 0.01)
    assert data() == b""
    assert "standard input is open and nothing comes" in capsys.readouterr().err


def test_one_without_end(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "END_S", 0.0)
    pipe.write(b"x")
    with pytest.raises(UsageError, match="has no end after 0 s"):
        data()


def test_too_much(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "LIMIT", 1 << 20)
    monkeypatch.setattr(sys, "stdin", open("/dev/zero", "rb"))  # noqa: SIM115 - for the thread
    with pytest.raises(UsageError, match="more than 1 MiB on standard input"):
        data()


@pytest.mark.parametrize("closed", [None, io.StringIO()])
def test_none_at_all(closed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", closed)
    assert stdin.begin() is None


def test_a_terminal_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    with open(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert stdin.begin() is None
    os.close(ours)
