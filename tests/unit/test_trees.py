# SPDX-License-Identifier: GPL-2.0-or-later
"""Folder trees deeper than recursion, PATH_MAX and open files allow, and with special files."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel.host import gc, store, trees
from blockyard.kernel.host.settings import PROJECT

DEEP = 1500  # Python recurses 1000 times; with names of 11 bytes a path is longer than PATH_MAX


def nest(top: Path, depth: int = DEEP) -> None:
    """Nest folders, with a file in every 500th, as a hostile makefile could."""
    script = (
        "import os, sys\n"
        "for number in range(int(sys.argv[1])):\n"
        "    os.mkdir('deep-folder'); os.chdir('deep-folder')\n"
        "    if number % 500 == 0: open('file', 'w').write('x' * 5000)\n"
    )
    top.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-c", script, str(depth)], cwd=top, check=True)


@pytest.fixture
def few_files() -> Iterator[None]:
    """Limit open files to fewer than the tree has levels."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
class TestDeep:
    def test_deep_tree_is_measured_walked_and_removed(self, tmp_path: Path) -> None:
        deep = tmp_path / "tree"
        nest(deep)
        done = subprocess.run(["du", "-s", "-B1", str(deep)], capture_output=True, text=True)
        assert trees.size(deep) == int(done.stdout.split()[0]) - deep.stat().st_blocks * 512
        assert len(list(trees.walk(deep))) == 2 * DEEP + DEEP // 500
        trees.remove(deep)
        assert not deep.exists()

    def test_gc_removes_a_deep_tree(self, cache: Path) -> None:
        tree = store.directory("builds") / f"{2:016x}"
        nest(tree)
        assert gc.entries()[0].size > DEEP * 4096 // 2
        freed = gc.collect(max_age_s=None, max_size=0)
        assert [entry.path for entry in freed.dropped] == [tree]
        assert not tree.exists()

    def test_failed_make_removes_a_deep_tree(self, cache: Path) -> None:
        def make(path: Path) -> None:
            nest(path / "source")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.get("modules", f"{1:016x}", "a module", make)
        assert list((cache / "modules").iterdir()) == []


class TestWalk:
    def test_folder_is_yielded_before_and_after_its_contents(self, tmp_path: Path) -> None:
        for name in ("a/b", "c"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("a/b/two", "a/one", "zero"):
            (tmp_path / name).touch()
        seen = [(entry.path, entry.status is None) for entry in trees.walk(tmp_path)]
        assert seen == [
            ("a", False),
            ("c", False),
            ("zero", False),
            ("a/b", False),
            ("a/one", False),
            ("a/b/two", False),
            ("a/b", True),
            ("a", True),
            ("c", True),
        ]

    def test_links_are_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "secret").touch()
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "link").symlink_to(tmp_path / "elsewhere")
        assert [entry.path for entry in trees.walk(tmp_path / "tree")] == ["link"]

    def test_folder_replaced_by_a_link_during_the_walk(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "secret").touch()
        (tmp_path / "tree" / "folder").mkdir(parents=True)
        seen = []
        for entry in trees.walk(tmp_path / "tree"):
            seen.append(entry.path)
            if entry.path == "folder":
                (tmp_path / "tree" / "folder").rmdir()
                (tmp_path / "tree" / "folder").symlink_to(tmp_path / "elsewhere")
        assert seen == ["folder"]

    def test_folder_moved_during_the_walk(self, tmp_path: Path) -> None:
        """Its ``..`` is then another folder, so the walk continues from the top."""
        (tmp_path / "tree" / "a" / "inner").mkdir(parents=True)
        (tmp_path / "tree" / "b").mkdir()
        (tmp_path / "tree" / "b" / "file").touch()
        (tmp_path / "tree" / "a" / "inner" / "file").touch()
        seen = []
        for entry in trees.walk(tmp_path / "tree"):
            seen.append(entry.path)
            if entry.path == "a/inner/file":
                (tmp_path / "tree" / "a" / "inner").rename(tmp_path / "moved")
        assert seen[-2:] == ["b/file", "b"]


class TestRemove:
    @pytest.mark.parametrize("kind", ["file", "link", "dangling", "pipe", "socket", "none"])
    def test_any_file_type_is_removed(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").touch()
        path = tmp_path / "thing"
        match kind:
            case "file":
                path.touch()
            case "link":
                path.symlink_to(tmp_path / "precious")
            case "dangling":
                path.symlink_to(tmp_path / "nowhere")
            case "pipe":
                os.mkfifo(path)
            case "socket":
                socket.socket(socket.AF_UNIX).bind(str(path))
        trees.remove(path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["precious"]
        assert (tmp_path / "precious" / "file").exists()

    def test_folders_with_mode_0_are_removed(self, tmp_path: Path) -> None:
        """Runs as an ordinary user: root ignores modes."""
        tree = tmp_path / "tree"
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "a" / "b" / "file").touch()
        for folder in (tree / "a" / "b", tree / "a", tree):
            folder.chmod(0)
        as_user = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "1000"]
        script = "import sys, pathlib; from blockyard.kernel.host import trees; "
        script += "trees.remove(pathlib.Path(sys.argv[1]))"
        done = subprocess.run(
            [*as_user, sys.executable, "-c", script, str(tree)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not tree.exists()
