# SPDX-License-Identifier: GPL-2.0-or-later
"""Control groups: where a group can be made, which limit was hit, removal of old groups."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.host import cgroup
from blockyard.kernel.host.cgroup import Group


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A version 2 hierarchy with our group `mine`, as plain files."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/cgroup.subtree_control").write_text("memory pids\n")
    monkeypatch.setattr(cgroup, "_mounts", lambda controller: iter([(tmp_path, 2, "/")]))
    monkeypatch.setattr(cgroup, "_own", lambda controller, version: iter(["/mine"]))
    return tmp_path / "mine"


def test_group_has_both_limits(hierarchy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def mkdir(folder: Path, **_: object) -> None:
        """Makes the files of a new group, as the kernel does."""
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


def test_no_group_without_permission_to_enable_a_controller(hierarchy: Path) -> None:
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
def test_exceeded_names_the_limit(tmp_path: Path, file: str, text: str, what: str) -> None:
    (tmp_path / file).write_text(text)
    assert Group((tmp_path,)).exceeded == what


def test_groups_of_dead_runs_are_removed(hierarchy: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead = hierarchy / f"blockyard-{process.pid}-0"
    others = [hierarchy / f"blockyard-{os.getppid()}-0", hierarchy / "blockyard-of-others"]
    for folder in (dead, *others):
        folder.mkdir()
    with cgroup.group(64, 16):
        pass
    assert not dead.exists()
    assert all(folder.exists() for folder in others)
