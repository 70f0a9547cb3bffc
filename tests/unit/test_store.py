# SPDX-License-Identifier: GPL-2.0-or-later
"""The cache: an existing entry is complete, whatever interrupted its creation."""

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


def make_entry(path: Path) -> None:
    (path / "data").write_text("complete")


def never(path: Path) -> None:
    raise AssertionError("made a second time")


def entries(cache: Path) -> list[str]:
    """Return the names in the cache's folder `things`, hidden ones included."""
    folder = cache / "things"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def python(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python process that uses the same cache."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        cwd=PROJECT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class TestGet:
    def test_entry_is_made_once(self, cache: Path) -> None:
        path = store.get("things", "k", "a thing", make_entry)
        assert path == cache / "things" / "k"
        assert (path / "data").read_text() == "complete"
        assert store.get("things", "k", "a thing", never) == path

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, Failure])
    def test_interrupted_make_leaves_nothing(self, cache: Path, error: type[BaseException]) -> None:
        def make(path: Path) -> None:
            make_entry(path)
            raise error("in the middle")

        with pytest.raises(error):
            store.get("things", "k", "a thing", make)
        assert entries(cache) == []
        assert (store.get("things", "k", "a thing", make_entry) / "data").exists()

    def test_killed_make_is_started_again(self, cache: Path) -> None:
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
        path = store.get("things", "k", "a thing", make_entry)
        assert [file.name for file in path.iterdir() if file.name[0] != "."] == ["data"]
        assert entries(cache) == ["k"]

    def test_full_disk_is_a_failure_with_a_hint(self, cache: Path) -> None:
        def make(path: Path) -> None:
            make_entry(path)
            with open("/dev/full", "w") as file:
                file.write("x")

        with pytest.raises(Failure, match="no space left") as caught:
            store.get("things", "k", "kernel 7.3", make)
        assert "kernel 7.3" in str(caught.value)
        assert "BLOCKYARD_CACHE" in caught.value.hint
        assert entries(cache) == []

    def test_full_disk_while_a_tree_is_copied_is_a_failure(self, cache: Path) -> None:
        def make(path: Path) -> None:
            raise shutil.Error([("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'b'")])

        with pytest.raises(Failure, match="no space left"):
            store.get("things", "k", "kernel 7.3", make)

    def test_other_os_errors_are_raised(self, cache: Path) -> None:
        def make(path: Path) -> None:
            (path / "none" / "file").write_text("x")

        with pytest.raises(FileNotFoundError):
            store.get("things", "k", "a thing", make)
        assert entries(cache) == []

    def test_cache_that_cannot_be_created_is_a_failure(self, cache: Path) -> None:
        cache.write_text("a file")
        with pytest.raises(Failure, match="cannot make the cache directory") as caught:
            store.get("things", "k", "a thing", never)
        assert "BLOCKYARD_CACHE" in caught.value.hint


class TestLock:
    def test_second_run_waits_for_the_first(
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
        paths: list[Path] = []
        second = threading.Thread(
            target=lambda: paths.append(store.get("things", "k", "a thing", never)), daemon=True
        )
        second.start()
        output = ""
        while "another run is working on a thing" not in output:
            assert second.is_alive()
            output += capfd.readouterr().err
        assert paths == []
        (tmp_path / "go").touch()
        second.join(60)
        assert first.wait(60) == 0
        assert [(path / "data").read_text() for path in paths] == ["the first one's"]

    def test_nested_entries_do_not_deadlock(self) -> None:
        def make(path: Path) -> None:
            store.get("things", "inner", "another thing", make_entry)
            make_entry(path)

        assert store.get("things", "outer", "a thing", make).is_dir()

    def test_lock_of_a_killed_run_is_released(self) -> None:
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
    def test_exit_of_a_process_is_silent(self) -> None:
        done = python("""
            from blockyard.kernel.host import locks, store

            for number in range(3):
                store.get("things", f"{number}", "a thing", lambda path: None)
            locks.os = None  # as at interpreter shutdown
        """)
        assert done.communicate(timeout=60) == ("", "")


class TestRemoveOld:
    def test_folder_in_use_is_kept(self) -> None:
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
    def test_read_only_directories_are_removed(self, tmp_path: Path) -> None:
        """Debian's source trees have them. Runs as an ordinary user: root ignores modes."""
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

    def test_target_of_a_link_is_kept(self, tmp_path: Path) -> None:
        (tmp_path / "precious").mkdir()
        (tmp_path / "precious" / "file").touch()
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "link").symlink_to(tmp_path / "precious")
        store.remove(tmp_path / "tree")
        assert (tmp_path / "precious" / "file").exists()

    def test_missing_path_is_ignored(self, tmp_path: Path) -> None:
        store.remove(tmp_path / "none")


class TestWrite:
    def test_write_creates_the_folder_and_replaces_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b"
        store.write(path, b"one")
        store.write(path, b"two")
        assert path.read_bytes() == b"two"
        assert list(path.parent.iterdir()) == [path]

    def test_failed_write_keeps_the_old_contents(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        store.write(path, b"old")
        with pytest.raises(TypeError):
            store.write(path, "text, not bytes")  # type: ignore[arg-type]
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


class TestDigest:
    def test_order_of_dict_keys_does_not_matter(self) -> None:
        assert store.digest("a", {"x": 1, "y": 2}) == store.digest("a", {"y": 2, "x": 1})

    def test_values_and_their_structure_matter(self) -> None:
        keys = {
            store.digest("a", "b"),
            store.digest("b", "a"),
            store.digest("ab"),
            store.digest("a", "b", ""),
            store.digest(["a", "b"]),
        }
        assert len(keys) == 5

    def test_key_is_16_hex_digits(self) -> None:
        key = store.digest("a", 1, None)
        assert len(key) == 16
        assert set(key) <= set("0123456789abcdef")
