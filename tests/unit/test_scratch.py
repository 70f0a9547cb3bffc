# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's temporary files are removed when it ends, also when its process was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.images.machine.scratch import OWNER as OWNER_FILE
from blockyard.images.machine.scratch import scratch
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT, settings

OWNER = """
import sys, time
from pathlib import Path
from blockyard.images.machine.scratch import scratch
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


def test_temporary_files_are_removed_and_logs_stay(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "guest"
    with pytest.raises(ZeroDivisionError), scratch(folder):
        for name in ("kernel.in", "disk.raw", "gdb.sock", "kernel.log", "vmcore"):
            (folder / name).touch()
        raise ZeroDivisionError
    assert names(folder) == ["kernel.log", "vmcore"]
    assert names(store.directory("running")) == []


@pytest.mark.parametrize("text", ["", "guest"])
def test_mark_without_a_valid_folder_removes_nothing(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A power cut or another program may leave such a mark."""
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


def test_files_of_a_killed_owner_are_removed_at_the_next_start(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = owner(folder)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert "initrd" in names(folder)
    with scratch(tmp_path / "next"):
        assert names(folder) == ["kernel.log"]
    assert names(store.directory("running")) == []


def test_files_of_a_live_owner_are_kept(cache: Path, tmp_path: Path) -> None:
    process = owner(tmp_path / "alive")
    try:
        with scratch(tmp_path / "next"):
            assert {"initrd", "kernel.log", "nvme0n1.raw"} <= set(names(tmp_path / "alive"))
    finally:
        process.kill()
        process.wait(60)


def test_copied_cache_removes_nothing_of_running_guests(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its marks name folders of the original, without the locks."""
    folder = tmp_path / "alive"
    process = owner(folder)
    try:
        copy = tmp_path / "copy"
        shutil.copytree(cache, copy)
        monkeypatch.setenv("BLOCKYARD_CACHE", str(copy))
        settings.cache_clear()
        with scratch(tmp_path / "next"):
            assert {"initrd", "kernel.log", "nvme0n1.raw"} <= set(names(folder))
    finally:
        process.kill()
        process.wait(60)
    with scratch(tmp_path / "next"):
        assert names(folder) == ["kernel.log"]


def test_stale_mark_of_a_reused_folder_removes_nothing(cache: Path, tmp_path: Path) -> None:
    """The mark was copied, or its folder was made again for another guest."""
    folder = tmp_path / "guest"
    folder.mkdir()
    (folder / OWNER_FILE).write_text("another")
    (folder / "mine.raw").touch()
    (store.directory("running") / "0123").write_text(str(folder))
    with scratch(tmp_path / "next"):
        assert (folder / "mine.raw").exists()
        assert not (cache / "running" / "0123").exists()


@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "bytes", "zeroes"])
def test_invalid_mark_is_removed(cache: Path, tmp_path: Path, kind: str) -> None:
    mark = store.directory("running") / "0123"
    precious = tmp_path / "precious"
    precious.write_text(str(tmp_path))
    match kind:
        case "folder":
            (mark / "inner").mkdir(parents=True)
        case "link":
            mark.symlink_to(precious)
        case "pipe":
            os.mkfifo(mark)
        case "bytes":
            mark.write_bytes(b"/\xff\xfe")
        case "zeroes":
            mark.write_bytes(bytes(5000))
    with scratch(tmp_path / "next"):
        assert len(names(store.directory("running"))) == 1
    assert names(store.directory("running")) == []
    assert precious.exists()


def test_second_guest_in_a_folder_is_a_failure(cache: Path, tmp_path: Path) -> None:
    with (
        scratch(tmp_path / "guest"),
        pytest.raises(Failure, match="another guest runs in"),
        scratch(tmp_path / "guest"),
    ):
        pass
    with scratch(tmp_path / "guest"):
        pass


def test_guest_runs_without_a_folder_for_marks(cache: Path, tmp_path: Path) -> None:
    """For example in a cache that is read-only."""
    cache.mkdir()
    (cache / "running").touch()
    with scratch(tmp_path / "guest"):
        (tmp_path / "guest" / "disk.raw").touch()
    assert names(tmp_path / "guest") == []
