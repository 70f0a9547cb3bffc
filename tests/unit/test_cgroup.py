# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups: where one may be made, in both versions."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.host import cgroup
from blockyard.kernel.host.cgroup import Group


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy of version 2 with our own group `mine` in it, as plain files."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/cgroup.subtree_control").write_text("memory pids\n")
    monkeypatch.setattr(cgroup, "_mounts", lambda controller: iter([(tmp_path, 2, "/")]))
    monkeypatch.setattr(cgroup, "_own", lambda controller, version: iter(["/mine"]))
    return tmp_path / "mine"


def test_one_folder_has_both_limits(hierarchy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def mkdir(folder: Path, **_: object) -> None:
        """As the kernel does: a new group has its files."""
        if folder not in made:
            made.append(folder)
            original(folder)
            for name in ("memory.max", "pids.max"):
                (folder / name).touch()

    original = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(cgroup, "REMOVAL_S", 0.0)
    with cgroup.group(256, 64) as group:
        assert group.folders == (made[0],)
        assert group.entrances == f"{made[0]}/cgroup.procs"
        assert (made[0] / "memory.max").read_text() == f"{256 << 20}\n"
        assert (made[0] / "pids.max").read_text() == "64\n"


def test_a_controller_that_is_not_ours_to_enable(hierarchy: Path) -> None:
    (hierarchy / "cgroup.subtree_control").unlink()
    (hierarchy / "cgroup.subtree_control").mkdir()
    with cgroup.group(256, 64) as group:
        assert group.folders == ()
        assert group.exceeded == ""


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("pids.events", "max 3\n", "processes"),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 2\noom_kill 1\n", "memory"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "memory"),
        ("memory.events", "low 0\nhigh 0\nmax 9\noom 0\noom_kill 0\n", ""),
        ("pids.events", "\xff", ""),
    ],
)
def test_which_limit_was_hit(tmp_path: Path, file: str, text: str, what: str) -> None:
    (tmp_path / file).write_text(text)
    assert Group((tmp_path,)).exceeded == what


def test_groups_of_runs_that_were_killed_go(hierarchy: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    dead = hierarchy / f"blockyard-{ended.pid}-0"
    others = [hierarchy / f"blockyard-{os.getppid()}-0", hierarchy / "blockyard-of-others"]
    for folder in (dead, *others):
        folder.mkdir()
    with cgroup.group(64, 16):
        pass
    assert not dead.exists()
    assert all(folder.exists() for folder in others)
