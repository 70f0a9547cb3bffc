# SPDX-License-Identifier: GPL-2.0-or-later
"""Files of guests that are gone with them, also when the owner was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from images.scratch import scratch
from kernel.host import store
from kernel.host.settings import PROJECT

OWNER = """
import sys, time
from pathlib import Path
from images.scratch import scratch
folder = Path(sys.argv[1])
with scratch(folder):
    for name in ("nvme0n1.raw", "initrd", "kernel.log"):
        (folder / name).write_bytes(b"x")
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BLOCKYARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def owner(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_they_go_at_the_end_and_logs_stay(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    with pytest.raises(ZeroDivisionError), scratch(folder):
        for name in ("kernel.in", "disk.raw", "gdb.sock", "kernel.log", "vmcore"):
            (folder / name).touch()
        raise ZeroDivisionError
    assert names(folder) == ["kernel.log", "vmcore"]
    assert names(store.directory("running")) == []


@pytest.mark.parametrize("text", ["", "guest"])
def test_a_mark_that_names_no_folder_removes_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """As a power cut may leave one, or somebody else's."""
    (tmp_path / "guest").mkdir()
    for folder in (tmp_path, tmp_path / "guest"):
        (folder / "mine.raw").touch()
    monkeypatch.chdir(tmp_path)
    (store.directory("running") / "0123").write_text(text)
    with scratch(tmp_path / "other"):
        pass
    assert (tmp_path / "mine.raw").exists()
    assert (tmp_path / "guest" / "mine.raw").exists()
    assert names(store.directory("running")) == []


def test_those_of_a_dead_owner_go_with_the_next_start(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = owner(folder)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert "initrd" in names(folder)
    with scratch(tmp_path / "next"):
        assert names(folder) == ["kernel.log"]
    assert names(store.directory("running")) == []


def test_those_of_a_live_owner_stay(cache: Path, tmp_path: Path) -> None:
    process = owner(tmp_path / "alive")
    try:
        with scratch(tmp_path / "next"):
            assert {"initrd", "kernel.log", "nvme0n1.raw"} <= set(names(tmp_path / "alive"))
    finally:
        process.kill()
        process.wait(60)
