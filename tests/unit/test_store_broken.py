# SPDX-License-Identifier: GPL-2.0-or-later
"""A damaged cache: it is repaired with one line of output, or one plain message is raised."""

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


def make_entry(path: Path) -> None:
    """Create the files that any kind of entry needs."""
    artifact.save_info(path, INFO)
    for name in ("bzImage", "config", "state", "memory", "versions.txt"):
        (path / name).write_bytes(name.encode() * 10)
    (path / "times.json").write_text("{}")
    (path / "tree").mkdir()
    (path / "tree" / "Makefile").write_text("VERSION = 7\n")


def made(kind: str) -> Path:
    """Create an entry and forget it, as if another process had made it."""
    path = store.get(kind, KEY, "a thing", make_entry)
    store.forget()
    return path


def files(path: Path) -> dict[str, bytes]:
    """Return the files of an entry, without its seal."""
    return {file.name: file.read_bytes() for file in path.glob("[!.]*") if file.is_file()}


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
    path.write_text("a file")


def entry_by_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def entry_by_pipe(path: Path) -> None:
    store.remove(path)
    os.mkfifo(path)


BREAKS = (truncate, empty, delete, delete_all, cut_image, cut_memory)
WRONG_TYPES = (entry_by_file, entry_by_link, entry_by_pipe)


class TestEntry:
    @pytest.mark.parametrize("damage", (*BREAKS, *WRONG_TYPES), ids=lambda damage: damage.__name__)
    @pytest.mark.parametrize("kind", KINDS)
    def test_damaged_entry_is_made_again_with_one_message(
        self, kind: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = made(kind)
        expected = files(path)
        damage(path)
        assert store.get(kind, KEY, "a thing", make_entry) == path
        assert files(path) == expected
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert f"{kind}/{KEY} in the cache is broken (" in lines[0]
        assert store.get(kind, KEY, "a thing", make_entry) == path
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
    def test_use_of_a_damaged_entry_returns_none(self, damage: Callable[[Path], None]) -> None:
        path = made("kernels")
        damage(path)
        assert store.use("kernels", KEY) is None
        assert not path.exists()

    def test_damaged_entry_is_removed_by_the_next_gc(self, cache: Path) -> None:
        truncate(made("kernels"))
        store.use("kernels", KEY)
        leftover = cache / "kernels" / f"{store.BROKEN}{KEY}"
        assert leftover.is_dir()
        assert gc.collect(max_age_s=None, max_size=None).leftovers == (leftover,)
        assert not leftover.exists()

    def test_second_damage_is_repaired_too(self, capsys: pytest.CaptureFixture[str]) -> None:
        for _ in range(2):
            truncate(made("kernels"))
            store.get("kernels", KEY, "a thing", make_entry)
        assert capsys.readouterr().err.count("broken") == 2

    def test_examine_hashes_the_files(self) -> None:
        path = made("kernels")
        store.examine("kernels", path)
        with open(path / "bzImage", "r+b") as file:
            file.write(b"X")
        with pytest.raises(Failure, match="bzImage was changed"):
            store.examine("kernels", path)
        assert store.use("kernels", KEY) is None

    def test_entry_is_checked_once_per_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        path = made("kernels")
        assert store.use("kernels", KEY) == path
        monkeypatch.setattr(seal, "problem", lambda *_: pytest.fail("checked again"))
        assert store.use("kernels", KEY) == path

    def test_folder_of_an_unsealed_kind_is_not_checked(self, cache: Path) -> None:
        """Output trees change between builds."""
        path = store.directory("builds") / KEY
        path.mkdir()
        (path / "x.o").touch()
        assert store.use("builds", KEY) == path


class TestOlder:
    """Entries that predate seals."""

    def unsealed(self, kind: str) -> Path:
        path = made(kind)
        for name in (seal.SEAL, seal.MANIFEST):
            (path / name).unlink()
        return path

    @pytest.mark.parametrize("kind", KINDS)
    def test_first_use_seals_the_entry(self, kind: str) -> None:
        path = self.unsealed(kind)
        assert store.use(kind, KEY) == path
        assert seal.problem(path, kind) == ""
        assert seal.verify(path, kind) == []

    @pytest.mark.parametrize(
        ("kind", "damage"),
        [
            *(("kernels", damage) for damage in (truncate, empty, delete, delete_all)),
            ("snapshots", cut_memory),
        ],
    )
    def test_incomplete_entry_is_made_again(
        self, kind: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = self.unsealed(kind)
        damage(path)
        store.get(kind, KEY, "a thing", make_entry)
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
    cwd = Path.cwd()
    os.chdir(path.parent)  # the path of a socket is limited to 107 bytes
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(cwd)


IMPOSTORS = (by_folder, by_full_folder, by_link, by_dangling_link, by_pipe, by_socket)


class TestMarkers:
    @pytest.mark.parametrize("impostor", IMPOSTORS, ids=lambda impostor: impostor.__name__)
    @pytest.mark.parametrize("which", ["lock", "use"])
    def test_marker_that_is_not_a_file_is_replaced_with_a_message(
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
        path = store.get("kernels", KEY, "a thing", make_entry)
        assert path.is_dir()
        assert marker.is_file()
        assert not marker.is_symlink()
        assert (cache / "precious").read_text() == "text"
        assert capsys.readouterr().err == f"{marker} in the cache was not a regular file: removed\n"

    @pytest.mark.parametrize("impostor", IMPOSTORS, ids=lambda impostor: impostor.__name__)
    @pytest.mark.parametrize("prefix", [store.MAKING, store.GONE, store.BROKEN])
    def test_leftover_in_the_way_is_removed(
        self, cache: Path, prefix: str, impostor: Callable[[Path], None]
    ) -> None:
        (cache / "kernels").mkdir(parents=True)
        (cache / "precious").write_text("text")
        impostor(cache / "kernels" / f"{prefix}{KEY}")
        store.get("kernels", KEY, "a thing", make_entry)
        truncate(made("kernels"))
        store.get("kernels", KEY, "a thing", make_entry)
        store.forget()
        gc.collect(max_age_s=0, max_size=0)
        assert list((cache / "kernels").iterdir()) == []
        assert (cache / "precious").read_text() == "text"

    def test_file_in_place_of_a_cache_folder_is_a_failure(self, cache: Path) -> None:
        cache.mkdir()
        (cache / "locks").write_text("x")
        with pytest.raises(Failure, match="cannot make the cache directory .*locks"):
            store.get("kernels", KEY, "a thing", make_entry)
        assert gc.collect(max_age_s=0, max_size=0).dropped == ()


class TestKernels:
    def test_list_skips_damaged_kernels(self, capsys: pytest.CaptureFixture[str]) -> None:
        made("kernels")
        for number, damage in enumerate((truncate, empty, delete, entry_by_file), start=1):
            path = store.get("kernels", f"{number:016x}", "a thing", make_entry)
            damage(path)
        assert list(kernels.made()) == [KEY]
        assert capsys.readouterr().err.count("left out: cannot read the kernel in") == 4

    def test_load_of_a_damaged_kernel_is_a_failure(self) -> None:
        path = made("kernels")
        truncate(path)
        with pytest.raises(Failure, match=r"kernel\.json") as caught:
            artifact.load(path)
        assert "remove that folder" in caught.value.hint


def as_other_user(script: str, cache: Path, *, read_only: bool = True) -> tuple[int, str]:
    """Run Python as an ordinary user who does not own the cache, by default read-only."""
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
    """A cache with one kernel, and without the markers that a use creates."""
    made("kernels")
    for folder in ("used", "locks"):
        shutil.rmtree(cache / folder)
    return cache


class TestReadOnly:
    def test_existing_entry_is_used(self, read_only: Path) -> None:
        script = HEAD + "print(store.use('kernels', KEY), store.get('kernels', KEY, 'x', never))"
        path = read_only / "kernels" / KEY
        assert as_other_user(script, read_only) == (0, f"{path} {path}\n")

    def test_unsealed_entry_is_used(self, read_only: Path) -> None:
        path = read_only / "kernels" / KEY
        for name in (seal.SEAL, seal.MANIFEST):
            (path / name).unlink()
        script = HEAD + "print(store.use('kernels', KEY))"
        assert as_other_user(script, read_only) == (0, f"{path}\n")

    @pytest.mark.parametrize(
        "call",
        [
            f"store.get('kernels', {'1' * 16!r}, 'kernel 7.3', never)",
            f"store.get('modules', {'1' * 16!r}, 'module x', never)",
            "gc.collect(max_age_s=0, max_size=0)",
            "store.directory('images')",
        ],
    )
    def test_write_to_the_cache_is_one_plain_message(self, read_only: Path, call: str) -> None:
        script = HEAD + f"try:\n    {call}\nexcept Failure as error:\n    print(error)"
        code, output = as_other_user(script, read_only)
        assert code == 0
        assert str(read_only) in output
        assert "Traceback" not in output
        assert "BLOCKYARD_CACHE" in output

    def test_damaged_entry_is_named_with_its_path(self, read_only: Path) -> None:
        truncate(read_only / "kernels" / KEY)
        script = HEAD + "try:\n    store.use('kernels', KEY)\nexcept Failure as e:\n    print(e)"
        code, output = as_other_user(script, read_only)
        assert code == 0
        assert f"{read_only}/kernels/{KEY} is broken (kernel.json has 10 bytes" in output
        assert "cannot be written" in output

    def test_dry_run_of_gc_works(self, read_only: Path) -> None:
        script = HEAD + "print(len(gc.collect(max_age_s=0, max_size=0, dry_run=True).dropped))"
        assert as_other_user(script, read_only) == (0, "1\n")

    def test_gc_of_the_owner_keeps_an_entry_in_use_elsewhere(self, read_only: Path) -> None:
        """A process that cannot write a marker locks the entry itself."""
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

    def test_os_errors_below_the_cache_are_explained(self, cache: Path) -> None:
        for error in (PermissionError(13, "Permission denied"), IsADirectoryError(21, "Is a dir")):
            error.filename = str(cache / "logs" / "x.log")
            explanation = store.explained(error)
            assert explanation is not None
            assert "x.log" in str(explanation)
            error.filename = "/elsewhere"
            assert store.explained(error) is None


def test_entry_whose_seal_was_removed_is_made_again(cache: Path) -> None:
    """Treating it as an entry that predates seals would seal the change."""
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
