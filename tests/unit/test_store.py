# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: an entry that exists is complete, whatever interrupted its making."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT


def fill(path: Path) -> None:
    (path / "data").write_text("whole")


def never(path: Path) -> None:
    raise AssertionError("made a second time")


def entries(cache: Path) -> list[str]:
    """What stands in the cache below `things`, hidden names included."""
    folder = cache / "things"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process with the same cache."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class TestGet:
    def test_an_entry_is_made_once(self, cache: Path) -> None:
        path = store.get("things", "k", "a thing", fill)
        assert path == cache / "things" / "k"
        assert (path / "data").read_text() == "whole"
        assert store.get("things", "k", "a thing", never) == path

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, Failure])
    def test_an_interrupted_making_leaves_nothing(
        self, cache: Path, error: type[BaseException]
    ) -> None:
        def make(path: Path) -> None:
            fill(path)
            raise error("in the middle")

        with pytest.raises(error):
            store.get("things", "k", "a thing", make)
        assert entries(cache) == []
        assert (store.get("things", "k", "a thing", fill) / "data").exists()

    def test_a_killed_making_is_begun_anew(self, cache: Path) -> None:
        killed = python("""
            import os
            from blockyard.kernel.host import store

            def make(path):
                (path / "half").write_text("half")
                os.kill(os.getpid(), 9)

            store.get("things", "k", "a thing", make)
        """)
        assert killed.wait(60) == -9
        assert "k" not in entries(cache)
        path = store.get("things", "k", "a thing", fill)
        assert [file.name for file in path.iterdir() if file.name[0] != "."] == ["data"]
        assert entries(cache) == ["k"]

    def test_a_full_disk_is_told_with_what_to_do(self, cache: Path) -> None:
        def make(path: Path) -> None:
            fill(path)
            with open("/dev/full", "w") as file:
                file.write("x")

        with pytest.raises(Failure, match="no space left") as caught:
            store.get("things", "k", "kernel 7.3", make)
        assert "kernel 7.3" in str(caught.value)
        assert "BLOCKYARD_CACHE" in caught.value.hint
        assert entries(cache) == []

    def test_a_disk_that_is_full_while_a_tree_is_copied(self, cache: Path) -> None:
        def make(path: Path) -> None:
            raise shutil.Error([("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'b'")])

        with pytest.raises(Failure, match="no space left"):
            store.get("things", "k", "kernel 7.3", make)

    def test_another_error_of_the_system_is_not_hidden(self, cache: Path) -> None:
        def make(path: Path) -> None:
            (path / "none" / "file").write_text("x")

        with pytest.raises(FileNotFoundError):
            store.get("things", "k", "a thing", make)
        assert entries(cache) == []

    def test_a_cache_that_cannot_be_made(self, cache: Path) -> None:
        cache.write_text("a file")
        with pytest.raises(Failure, match="cannot make the cache directory") as caught:
            store.get("things", "k", "a thing", never)
        assert "BLOCKYARD_CACHE" in caught.value.hint


class TestLock:
    def test_the_second_of_two_runs_waits_for_the_first(
        self, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        first = python(
            """
            import sys, time
            from pathlib import Path
            from blockyard.kernel.host import store

            def make(path):
                print("making", flush=True)
                while not Path(sys.argv[1]).exists():
                    time.sleep(0.01)
                (path / "data").write_text("the first one's")

            store.get("things", "k", "a thing", make)
            """,
            str(tmp_path / "go"),
        )
        assert first.stdout is not None
        assert first.stdout.readline() == "making\n"
        got: list[Path] = []
        second = threading.Thread(
            target=lambda: got.append(store.get("things", "k", "a thing", never)), daemon=True
        )
        second.start()
        told = ""
        while "another run is working on a thing" not in told:
            assert second.is_alive()
            told += capfd.readouterr().err
        assert got == []
        (tmp_path / "go").touch()
        second.join(60)
        assert first.wait(60) == 0
        assert [(path / "data").read_text() for path in got] == ["the first one's"]

    def test_two_entries_do_not_wait_for_each_other(self) -> None:
        def make(path: Path) -> None:
            store.get("things", "inner", "another thing", fill)
            fill(path)

        assert store.get("things", "outer", "a thing", make).is_dir()

    def test_the_lock_of_a_killed_run_is_free(self) -> None:
        killed = python("""
            import os
            from blockyard.kernel.host import store

            with store.locked("things", "k", "a thing"):
                os.kill(os.getpid(), 9)
        """)
        assert killed.wait(60) == -9
        with store.locked("things", "k", "a thing"):
            pass


class TestHeld:
    def test_the_end_of_a_process_is_silent(self) -> None:
        done = python("""
            from blockyard.kernel.host import locks, store

            for number in range(3):
                store.get("things", f"{number}", "a thing", lambda path: None)
            locks.os = None  # as the interpreter's end may leave it
        """)
        assert done.communicate(timeout=60) == ("", "")


class TestRemoveOld:
    def test_what_is_in_use_stays(self) -> None:
        folders = [store.directory("guests") / name for name in ("oldest", "older", "new")]
        for age, folder in enumerate(folders):
            folder.mkdir()
            os.utime(folder, (age, age))
        with store.in_use(folders[0]):
            store.remove_old("guests", 1)
        assert [folder.exists() for folder in folders] == [True, False, True]
        store.remove_old("guests", 1)
        assert [folder.exists() for folder in folders] == [False, False, True]


class TestRemove:
    def test_a_tree_of_read_only_directories(self, tmp_path: Path) -> None:
        """Debian's source trees and module folders have them. Root's rights would hide it."""
        tree = tmp_path / "tree"
        (tree / "a" / "b").mkdir(parents=True)
        (tree / "a" / "b" / "file").touch()
        (tree / "link").symlink_to("a")
        for folder in (tree / "a" / "b", tree / "a", tree):
            folder.chmod(0o500)
        without_rights = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "1000"]
        script = "import sys, pathlib; from blockyard.kernel.host import store; "
        script += "store.remove(pathlib.Path(sys.argv[1]))"
        done = subprocess.run(
            [*without_rights, sys.executable, "-c", script, str(tree)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert not tree.exists()

    def test_what_a_link_points_to_stays(self, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").touch()
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
        store.remove(tmp_path / "tree")
        assert (tmp_path / "precious" / "file").exists()

    def test_nothing_to_remove(self, tmp_path: Path) -> None:
        store.remove(tmp_path / "none")


class TestWrite:
    def test_the_folder_is_made_and_the_file_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b"
        store.write(path, b"one")
        store.write(path, b"two")
        assert path.read_bytes() == b"two"
        assert list(path.parent.iterdir()) == [path]

    def test_a_failure_leaves_the_old_contents_and_no_other_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        store.write(path, b"old")
        with pytest.raises(TypeError):
            store.write(path, "text, not bytes")  # type: ignore[arg-type]
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


class TestDigest:
    def test_it_depends_on_values_alone(self) -> None:
        assert store.digest("a", {"x": 1, "y": 2}) == store.digest("a", {"y": 2, "x": 1})

    def test_every_input_counts_and_so_does_its_place(self) -> None:
        keys = {
            store.digest("a", "b"),
            store.digest("b", "a"),
            store.digest("ab"),
            store.digest("a", "b", ""),
            store.digest(["a", "b"]),
        }
        assert len(keys) == 5

    def test_a_key_is_a_file_name(self) -> None:
        key = store.digest("a", 1, None)
        assert len(key) == 16
        assert set(key) <= set("0123456789abcdef")
