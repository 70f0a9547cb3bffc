# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input of the command in `./inv boot --run`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator

import pytest

from blockyard.ci.commands import stdin
from blockyard.kernel.host.errors import UsageError


class Pipe:
    """A pipe in place of sys.stdin."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def fileno(self) -> int:
        return self.reader

    def write(self, data: bytes) -> None:
        os.write(self.writer, data)

    def end(self) -> None:
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipe]:
    pipe = Pipe()
    monkeypatch.setattr(sys, "stdin", pipe)
    yield pipe
    pipe.end()


def data() -> bytes:
    reader = stdin.begin()
    assert reader is not None
    return reader.data()


def test_piped_bytes_are_passed(pipe: Pipe) -> None:
    pipe.write(bytes(range(256)))
    pipe.end()
    assert data() == bytes(range(256))


def test_late_bytes_are_passed(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe.write(b"one\n")
    reader = stdin.begin()
    pipe.write(b"two\n")
    pipe.end()
    assert reader is not None
    assert reader.data() == b"one\ntwo\n"


def test_empty_pipe_is_empty(pipe: Pipe) -> None:
    pipe.end()
    assert data() == b""


def test_silent_pipe_counts_as_empty(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stdin, "FIRST_S", 0.01)
    assert data() == b""
    assert "no data on standard input" in capsys.readouterr().err


def test_endless_pipe_is_a_usage_error(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "END_S", 0.0)
    pipe.write(b"x")
    with pytest.raises(UsageError, match="has no end after 0 s"):
        data()


def test_size_is_limited(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdin, "LIMIT", 1 << 20)
    monkeypatch.setattr(sys, "stdin", open("/dev/zero", "rb"))  # noqa: SIM115 - for the thread
    with pytest.raises(UsageError, match="more than 1 MiB on standard input"):
        data()


@pytest.mark.parametrize("closed", [None, io.StringIO()])
def test_closed_stdin_is_none(closed: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", closed)
    assert stdin.begin() is None


def test_terminal_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal_end = os.openpty()
    with open(terminal_end) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        assert stdin.begin() is None
    os.close(controller)
