# SPDX-License-Identifier: GPL-2.0-or-later
"""Logging with -v and -vv; without them nothing is printed."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from blockyard.kernel.host import log

LOGGER = logging.getLogger("blockyard.kernel.host.process")


@pytest.fixture(autouse=True)
def restore_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(log.VARIABLE, "")
    yield
    log.setup(0)


@pytest.mark.parametrize(
    ("verbosity", "commands", "traffic"),
    [(0, False, False), (1, True, False), (2, True, True), (7, True, True)],
)
def test_verbosity_selects_what_is_printed(
    verbosity: int, commands: bool, traffic: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    log.setup(verbosity)
    LOGGER.info("a command")
    LOGGER.debug("a frame")
    out, err = capsys.readouterr()
    assert out == ""
    assert ("a command" in err, "a frame" in err) == (commands, traffic)


def test_second_setup_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(2)
    log.setup(1)
    LOGGER.info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_line_starts_with_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(1)
    LOGGER.info("$ true")
    line = capsys.readouterr().err
    assert line[2::3][:2] == "::"
    assert line.endswith(" $ true\n")


def test_escapes_and_passwords_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(2)
    LOGGER.debug("\x1b[2J https://user:secret@host/")
    err = capsys.readouterr().err
    assert "\\x1b[2J https://***@host/" in err


def test_child_process_inherits_the_verbosity(capsys: pytest.CaptureFixture[str]) -> None:
    log.setup(1)
    logging.getLogger(log.ROOT).setLevel(logging.NOTSET)  # as in a new process
    log.inherit()
    LOGGER.info("from a worker")
    assert "from a worker" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"echo a\n", "echo a\\n"),
        (b"\x1eEND \xff\x00", "\\x1eEND \\xff\\x00"),
        (b"a\\n", "a\\\\n"),
        ("größe".encode(), "größe"),
    ],
)
def test_frames_are_one_readable_line(data: bytes, text: str) -> None:
    assert log.shown(data) == text


def test_long_frames_are_cut() -> None:
    shown = log.shown(b"x" * 100_000)
    assert shown.endswith(" ... (100000 bytes)")
    assert len(shown) < 500
