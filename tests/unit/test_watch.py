# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits of an untrusted program: time, memory, processes, reports and files."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.ci.run.module_tests import watch
from blockyard.ci.run.module_tests.watch import Limits, Overrun, used, watched

HEAD = "import os, sys, time; pipe = open(int(sys.argv[1]), 'wb', buffering=0)\n"


@pytest.fixture
def limits(tmp_path: Path) -> Limits:
    return Limits(silence_s=30, total_s=60, memory=1 << 30, folder=tmp_path)


@pytest.fixture(autouse=True)
def short_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "TICK_S", 0.1)


def lines(script: str, limits: Limits) -> list[bytes]:
    def argv(descriptor: int) -> list[str]:
        return [sys.executable, "-I", "-c", HEAD + script, str(descriptor)]

    with watched(argv, limits) as child:
        return list(child.lines())


def test_lines_are_complete(limits: Limits) -> None:
    script = "pipe.write(b'one\\ntw'); time.sleep(.2); pipe.write(b'o\\nhalf')"
    assert lines(script, limits) == [b"one", b"two"]


def test_silence_is_limited(limits: Limits) -> None:
    started = time.monotonic()
    with pytest.raises(Overrun, match="no end after 1 s") as caught:
        lines("time.sleep(1e6)", replace(limits, silence_s=1))
    assert caught.value.silent
    assert time.monotonic() - started < 10


def test_total_time_is_limited(limits: Limits) -> None:
    with pytest.raises(Overrun, match="no end after 1 s"):
        lines("while True: pipe.write(b'x\\n'); time.sleep(.1)", replace(limits, total_s=1))


def test_size_of_reports_is_limited(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "REPORTS_BYTES", 3 << 20)
    with pytest.raises(Overrun, match="more than 3 MiB of reports"):
        lines("while True: pipe.write(b'x' * 999 + b'\\n')", limits)


def test_output_does_not_count_as_a_report(limits: Limits) -> None:
    with pytest.raises(Overrun, match="no end"):
        lines("while True: os.write(1, b'x' * 99)", replace(limits, silence_s=1))


@pytest.mark.parametrize(
    ("script", "limit", "message"),
    [
        ("x = b'x' * (200 << 20); time.sleep(60)", {"memory": 100 << 20}, "100 MiB of memory"),
        (
            "import subprocess\nsubprocess.run(['sh', '-c', 'sleep 60 & sleep 60'])",
            {"processes": 2},
            "more than 2 processes",
        ),
        ("pipe.write(b'x' * (5 << 20)); time.sleep(60)", {}, "longer than 4 MiB"),
    ],
    ids=["memory", "processes", "report"],
)
def test_exceeded_limit_ends_the_program(
    limits: Limits, script: str, limit: dict[str, int], message: str
) -> None:
    with pytest.raises(Overrun, match=message):
        lines(script, replace(limits, **limit))  # type: ignore[arg-type]


class TestUsed:
    def test_files_and_bytes_are_limited(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            (tmp_path / name).write_bytes(b"x" * 8192)
        used(tmp_path, disk=1 << 20, files=3)
        with pytest.raises(Overrun, match="more than 2 files"):
            used(tmp_path, disk=1 << 20, files=2)
        with pytest.raises(Overrun, match="on disk"):
            used(tmp_path, disk=8192, files=3)

    def test_holes_and_link_targets_do_not_count(self, tmp_path: Path) -> None:
        with open(tmp_path / "sparse", "wb") as file:
            os.truncate(file.fileno(), 1 << 40)
        (tmp_path / "all").symlink_to("/usr")
        used(tmp_path, disk=1 << 20, files=2)

    def test_too_deep_folders_are_refused(self, tmp_path: Path) -> None:
        folder = os.open(tmp_path, os.O_RDONLY)
        depth, name = 30, "d" * 200
        for _ in range(depth):
            os.mkdir(name, dir_fd=folder)
            deeper = os.open(name, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = deeper
        try:
            with pytest.raises(Overrun, match="cannot be read"):
                used(tmp_path, disk=1 << 30, files=10_000)
        finally:
            for _ in range(depth):
                above = os.open("..", os.O_RDONLY, dir_fd=folder)
                os.close(folder)
                os.rmdir(name, dir_fd=above)
                folder = above
            os.close(folder)
