# SPDX-License-Identifier: GPL-2.0-or-later
"""A cache in which something is broken: it is mended and said in one line, or one plain message."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.ci.commands import kernels
from blockyard.kernel import artifact
from blockyard.kernel.artifact import KernelInfo
from blockyard.kernel.host import gc, locks, seal, store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources.origin import Other

KEY = f"{7:016x}"
KINDS = ("kernels", "images", "modules", "snapshots", "sources", "roots", "qemu")
INFO = KernelInfo(
    key=KEY, name="7.3", release="7.3.4", source=Other("a test"), config_sha256="", toolchain={}
)


def fill(path: Path) -> None:
    """An entry with what any kind needs."""
    artifact.save_info(path, INFO)
    for name in ("bzImage", "config", "state", "memory", "versions.txt"):
        (path / name).write_bytes(name.encode() * 10)
    (path / "times.json").write_text("{}")
    (path / "tree").mkdir()
    (path / "tree" / "Makefile").write_text("VERSION = 7\n")


def made(kind: str) -> Path:
    """An entry as a process before this one left it."""
    path = store.get(kind, KEY, "a thing", fill)
    store.forget()
    return path


def files(path: Path) -> dict[str, bytes]:
    """What an entry holds, without its seal."""
    return {one.name: one.read_bytes() for one in path.glob("[!.]*") if one.is_file()}


def truncate(path: Path) -> None:
    os.truncate(path / "kernel.json", 10)


def empty(path: Path) -> None:
    os.truncate(path / "kernel.json", 0)


def delete(path: Path) -> None:
    (path / "kernel.json").unlink()


def delete_all(path: Path) -> None:
    for name in files(path):
        (path / name).unlink()


def cut_image(path: Path) -> None:
    os.truncate(path / "bzImage", 20)


def cut_memory(path: Path) -> None:
    os.truncate(path / "memory", 0)


def entry_by_file(path: Path) -> None:
    store.remove(path)
    path.write_text("no folder")


def entry_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def entry_by_pipe(path: Path) -> None:
    store.remove(path)
    os.mkfifo(path)


BREAKS = (truncate, empty, delete, delete_all, cut_image, cut_memory)
WRONG_TYPES = (entry_by_file, entry_by_link, entry_by_pipe)


class TestEntry:
    @pytest.mark.parametrize("broken", (*BREAKS, *WRONG_TYPES), ids=lambda one: one.__name__)
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_made_again_and_said_once(
        self, kind: str, broken: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = made(kind)
        whole = files(path)
        broken(path)
        assert store.get(kind, KEY, "a thing", fill) == path
        assert files(path) == whole
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert f"{kind}/{KEY} in the cache is broken (" in said[0]
        assert store.get(kind, KEY, "a thing", fill) == path
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("broken", BREAKS, ids=lambda one: one.__name__)
    def test_whoever_only_asks_for_it_is_told_that_there_is_none(
        self, broken: Callable[[Path], None]
    ) -> None:
        path = made("kernels")
        broken(path)
        assert store.use("kernels", KEY) is None
        assert not path.exists()

    def test_what_was_moved_aside_goes_with_the_next_clean_up(self, cache: Path) -> None:
        truncate(made("kernels"))
        store.use("kernels", KEY)
        left = cache / "kernels" / f"{store.BROKEN}{KEY}"
        assert left.is_dir()
        assert gc.collect(max_age_s=None, max_size=None).leftovers == (left,)
        assert not left.exists()

    def test_twice_in_a_row(self, capsys: pytest.CaptureFixture[str]) -> None:
        for _ in range(2):
            truncate(made("kernels"))
            store.get("kernels", KEY, "a thing", fill)
        assert capsys.readouterr().err.count("broken") == 2

    def test_what_something_is_made_from_is_hashed(self) -> None:
        path = made("kernels")
        store.examine("kernels", path)
        with open(path / "bzImage", "r+b") as file:
            file.write(b"X")
        with pytest.raises(Failure, match="bzImage was changed"):
            store.examine("kernels", path)
        assert store.use("kernels", KEY) is None

    def test_it_is_looked_at_once_in_a_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        path = made("kernels")
        assert store.use("kernels", KEY) == path
        monkeypatch.setattr(seal, "problem", lambda *_: pytest.fail("looked at again"))
        assert store.use("kernels", KEY) == path

    def test_in_a_folder_of_an_unsealed_kind(self, cache: Path) -> None:
        """Output trees change; only one that is no folder is in the way."""
        path = store.directory("builds") / KEY
        path.mkdir()
        (path / "x.o").touch()
        assert store.use("builds", KEY) == path


class TestOlder:
    """Entries from before there were seals."""

    def unsealed(self, kind: str) -> Path:
        path = made(kind)
        for name in (seal.SEAL, seal.MANIFEST):
            (path / name).unlink()
        return path

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_sealed_with_its_first_use(self, kind: str) -> None:
        path = self.unsealed(kind)
        assert store.use(kind, KEY) == path
        assert seal.problem(path, kind) == ""
        assert seal.verify(path, kind) == []

    @pytest.mark.parametrize(
        ("kind", "broken"),
        [
            *(("kernels", broken) for broken in (truncate, empty, delete, delete_all)),
            ("snapshots", cut_memory),
        ],
    )
    def test_one_that_cannot_be_whole_is_made_again(
        self, kind: str, broken: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.unsealed(kind)
        broken(path)
        store.get(kind, KEY, "a thing", fill)
        assert "is broken" in capsys.readouterr().err
        assert seal.verify(path, kind) == []


def by_folder(path: Path) -> None:
    path.mkdir()


def by_full_folder(path: Path) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").touch()


def by_link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "precious")


def by_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def by_pipe(path: Path) -> None:
    os.mkfifo(path)


def by_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket may not be long
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


IMPOSTORS = (by_folder, by_full_folder, by_link, by_dangling_link, by_pipe, by_socket)


class TestMarkers:
    @pytest.mark.parametrize("impostor", IMPOSTORS, ids=lambda one: one.__name__)
    @pytest.mark.parametrize("which", ["lock", "use"])
    def test_what_is_none_is_replaced_and_said(
        self,
        cache: Path,
        which: str,
        impostor: Callable[[Path], None],
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for folder in ("locks", "used"):
            store.directory(folder)
        (cache / "precious").write_text("text")
        marker = (locks.lock_file if which == "lock" else locks.use_file)("kernels", KEY)
        impostor(marker)
        path = store.get("kernels", KEY, "a thing", fill)
        assert path.is_dir()
        assert marker.is_file()
        assert not marker.is_symlink()
        assert (cache / "precious").read_text() == "text"
        assert capsys.readouterr().err == f"{marker} in the cache was not a regular file: removed\n"

    @pytest.mark.parametrize("impostor", IMPOSTORS, ids=lambda one: one.__name__)
    @pytest.mark.parametrize("prefix", [store.MAKING, store.GONE, store.BROKEN])
    def test_what_stands_where_an_entry_is_made(
        self, cache: Path, prefix: str, impostor: Callable[[Path], None]
    ) -> None:
        (cache / "kernels").mkdir(parents=True)
        (cache / "precious").write_text("text")
        impostor(cache / "kernels" / f"{prefix}{KEY}")
        store.get("kernels", KEY, "a thing", fill)
        truncate(made("kernels"))
        store.get("kernels", KEY, "a thing", fill)
        store.forget()
        gc.collect(max_age_s=0, max_size=0)
        assert list((cache / "kernels").iterdir()) == []
        assert (cache / "precious").read_text() == "text"

    def test_a_folder_of_the_cache_that_is_a_file(self, cache: Path) -> None:
        cache.mkdir()
        (cache / "locks").write_text("x")
        with pytest.raises(Failure, match="cannot make the cache directory .*locks"):
            store.get("kernels", KEY, "a thing", fill)
        assert gc.collect(max_age_s=0, max_size=0).dropped == ()


class TestLooks:
    def test_a_list_goes_on_with_the_other_kernels(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made("kernels")
        for number, broken in enumerate((truncate, empty, delete, entry_by_file), start=1):
            path = store.get("kernels", f"{number:016x}", "a thing", fill)
            broken(path)
        assert list(kernels.made()) == [KEY]
        assert capsys.readouterr().err.count("left out: the kernel in") == 4

    def test_loading_a_broken_one_is_no_traceback(self) -> None:
        path = made("kernels")
        truncate(path)
        with pytest.raises(Failure, match=r"kernel\.json") as caught:
            artifact.load(path)
        assert "remove that folder" in caught.value.hint


def without_rights(script: str, cache: Path, *, read_only: bool = True) -> tuple[int, str]:
    """Runs Python as an ordinary user who does not own the cache, or where it is read-only."""
    argv = ["bwrap", "--dev-bind", "/", "/", "--unshare-user", "--uid", "1000"]
    argv += ["--ro-bind", str(cache), str(cache)] if read_only else []
    done = subprocess.run(
        [*argv, sys.executable, "-c", textwrap.dedent(script)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


HEAD = f"""
from blockyard.kernel.host import gc, store
from blockyard.kernel.host.errors import Failure
KEY = {KEY!r}
def never(path): raise AssertionError
"""


@pytest.fixture
def read_only(cache: Path) -> Path:
    """A cache with one kernel, and without the markers that a use makes."""
    made("kernels")
    for folder in ("used", "locks"):
        shutil.rmtree(cache / folder)
    return cache


class TestReadOnly:
    def test_what_is_there_is_used(self, read_only: Path) -> None:
        script = HEAD + "print(store.use('kernels', KEY), store.get('kernels', KEY, 'x', never))"
        path = read_only / "kernels" / KEY
        assert without_rights(script, read_only) == (0, f"{path} {path}\n")

    def test_an_older_entry_without_a_seal(self, read_only: Path) -> None:
        path = read_only / "kernels" / KEY
        for name in (seal.SEAL, seal.MANIFEST):
            (path / name).unlink()
        script = HEAD + "print(store.use('kernels', KEY))"
        assert without_rights(script, read_only) == (0, f"{path}\n")

    @pytest.mark.parametrize(
        "call",
        [
            f"store.get('kernels', {'1' * 16!r}, 'kernel 7.3', never)",
            f"store.get('modules', {'1' * 16!r}, 'module x', never)",
            "gc.collect(max_age_s=0, max_size=0)",
            "store.directory('images')",
        ],
    )
    def test_what_cannot_be_done_is_one_plain_message(self, read_only: Path, call: str) -> None:
        script = HEAD + f"try:\n    {call}\nexcept Failure as error:\n    print(error)"
        code, said = without_rights(script, read_only)
        assert code == 0
        assert str(read_only) in said
        assert "Traceback" not in said
        assert "BLOCKYARD_CACHE" in said

    def test_a_broken_entry_is_named_with_its_path(self, read_only: Path) -> None:
        truncate(read_only / "kernels" / KEY)
        script = HEAD + "try:\n    store.use('kernels', KEY)\nexcept Failure as e:\n    print(e)"
        code, said = without_rights(script, read_only)
        assert code == 0
        assert f"{read_only}/kernels/{KEY} is broken (kernel.json has 10 bytes" in said
        assert "cannot be written" in said

    def test_sizes_and_a_trial_of_a_clean_up_work(self, read_only: Path) -> None:
        script = HEAD + "print(len(gc.collect(max_age_s=0, max_size=0, dry_run=True).dropped))"
        assert without_rights(script, read_only) == (0, "1\n")

    def test_its_owner_leaves_alone_what_is_in_use_by_another(self, read_only: Path) -> None:
        """Who can write no marker locks the entry itself."""
        script = HEAD + "store.use('kernels', KEY)\nprint('ready', flush=True)\ninput()"
        process = subprocess.Popen(
            ["bwrap", "--dev-bind", "/", "/", "--ro-bind", str(read_only), str(read_only)]
            + [sys.executable, "-c", script],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert gc.collect(max_age_s=0, max_size=0).dropped == ()
        process.communicate("\n", timeout=60)
        assert len(gc.collect(max_age_s=0, max_size=0).dropped) == 1

    def test_errors_of_the_system_about_the_cache_are_explained(self, cache: Path) -> None:
        for error in (PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a dir")):
            error.filename = str(cache / "logs" / "x.log")
            known = store.explained(error)
            assert known is not None
            assert "x.log" in str(known)
            error.filename = "/elsewhere"
            assert store.explained(error) is None


def test_an_entry_whose_seal_was_removed_is_made_again(cache: Path) -> None:
    """It is not taken for one from before there were seals, which would seal what was changed."""
    key = store.digest("x")
    made: list[int] = []

    def make(path: Path) -> None:
        made.append(1)
        (path / "file").write_text("right")

    path = store.get("kernels", key, "a thing", make)
    (path / ".seal").unlink()
    (path / "file").write_text("wrong")
    store.forget()
    assert (store.get("kernels", key, "a thing", make) / "file").read_text() == "right"
    assert len(made) == 2
