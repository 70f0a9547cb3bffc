# SPDX-License-Identifier: GPL-2.0-or-later
"""Seals detect every change to an entry's files; an unchanged entry is not hashed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from blockyard.kernel.host import durable, listing, seal, trees
from blockyard.kernel.host.errors import Failure


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = tmp_path / "entry"
    (path / "modules" / "deep").mkdir(parents=True)
    (path / "bzImage").write_bytes(b"image" * 1000)
    (path / "kernel.json").write_bytes(b"{}")
    (path / "modules" / "deep" / "x.ko").write_bytes(b"module")
    (path / "modules" / "link").symlink_to("deep")
    seal.make(path, "kernels")
    return path


def truncate(path: Path) -> None:
    os.truncate(path / "bzImage", 100)


def empty(path: Path) -> None:
    os.truncate(path / "kernel.json", 0)


def delete(path: Path) -> None:
    (path / "kernel.json").unlink()


def delete_deep(path: Path) -> None:
    (path / "modules" / "deep" / "x.ko").unlink()


def overwrite(path: Path) -> None:
    """Keep the size and restore the times."""
    status = (path / "bzImage").stat()
    with open(path / "bzImage", "r+b") as file:
        file.write(b"other")
    os.utime(path / "bzImage", ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_link(path: Path) -> None:
    (path / "bzImage").rename(path.parent / "elsewhere")
    (path / "bzImage").symlink_to(path.parent / "elsewhere")


def replace_by_folder(path: Path) -> None:
    (path / "kernel.json").unlink()
    (path / "kernel.json").mkdir()


def replace_by_pipe(path: Path) -> None:
    (path / "kernel.json").unlink()
    os.mkfifo(path / "kernel.json")


def add(path: Path) -> None:
    (path / "more.ko").touch()


def cut_seal(path: Path) -> None:
    os.truncate(path / seal.SEAL, 20)


def seal_by_folder(path: Path) -> None:
    (path / seal.SEAL).unlink()
    (path / seal.SEAL).mkdir()


DAMAGES: dict[Callable[[Path], None], str] = {
    truncate: "bzImage has 100 bytes, not 5000",
    empty: "kernel.json has 0 bytes, not 2",
    delete: "kernel.json is missing",
    delete_deep: "x.ko",
    overwrite: "bzImage was changed since it was made",
    replace_by_link: "bzImage is not a regular file",
    replace_by_folder: "kernel.json is not a regular file",
    replace_by_pipe: "kernel.json is not a regular file",
    add: "more.ko was added",
    cut_seal: "its seal is damaged",
    seal_by_folder: "its seal is damaged",
}


class TestFirstUse:
    def test_unchanged_entry_is_valid(self, entry: Path) -> None:
        assert seal.problem(entry, "kernels") == ""

    @pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
    def test_damage_is_detected(self, entry: Path, damage: Callable[[Path], None]) -> None:
        damage(entry)
        assert DAMAGES[damage] in (seal.problem(entry, "kernels") or "")

    def test_unchanged_entry_is_not_hashed(
        self, entry: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(seal, "sha256_of", lambda _: pytest.fail("hashed"))
        assert seal.problem(entry, "kernels") == ""

    def test_copied_entry_is_hashed_once(
        self, entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(entry, tmp_path / "copy", symlinks=True)
        assert seal.problem(tmp_path / "copy", "kernels") == ""
        monkeypatch.setattr(seal, "sha256_of", lambda _: pytest.fail("hashed again"))
        assert seal.problem(tmp_path / "copy", "kernels") == ""

    def test_truncated_copy_is_detected(self, entry: Path, tmp_path: Path) -> None:
        shutil.copytree(entry, tmp_path / "copy", symlinks=True)
        os.truncate(tmp_path / "copy" / "bzImage", 4999)
        assert "bzImage" in (seal.problem(tmp_path / "copy", "kernels") or "")

    def test_unsealed_entry_is_neither_valid_nor_broken(self, entry: Path) -> None:
        """Such entries predate seals."""
        for name in (seal.SEAL, seal.MANIFEST):
            (entry / name).unlink()
        assert seal.problem(entry, "kernels") is None

    def test_mutable_file_may_change_but_must_be_readable(self, entry: Path) -> None:
        (entry / "times.json").write_text("{}")
        seal.make(entry, "snapshots")
        (entry / "times.json").write_text('{"boot_s": 1.5}')
        assert seal.problem(entry, "snapshots") == ""
        os.truncate(entry / "times.json", 0)
        assert "cannot read" in (seal.problem(entry, "snapshots") or "")

    def test_sample_of_a_large_entry_has_top_level_and_largest_files(self, tmp_path: Path) -> None:
        tree = tmp_path / "entry" / "tree"
        tree.mkdir(parents=True)
        for number in range(seal.FEW + 100):
            (tree / f"{number:04}").write_bytes(bytes(10))
        (tree / "large").write_bytes(bytes(100_000))
        (tree.parent / "versions.txt").write_text("x 1\n")
        sealed = seal.make(tree.parent, "roots")
        assert sealed.files == seal.FEW + 102
        assert len(sealed.checked) < 3 * seal.SAMPLE
        assert {"tree/large", "versions.txt"} <= {file.name for file in sealed.checked}
        os.truncate(tree / "large", 99_999)
        assert "tree/large has 99999 bytes" in (seal.problem(tree.parent, "roots") or "")


class TestVerify:
    def test_unchanged_entry_is_valid(self, entry: Path) -> None:
        seen: list[int] = []
        assert seal.verify(entry, "kernels", seen.append) == []
        assert sum(seen) == 5008

    @pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
    def test_damage_is_detected(self, entry: Path, damage: Callable[[Path], None]) -> None:
        damage(entry)
        assert seal.verify(entry, "kernels")

    def test_silent_corruption_is_found_by_verify_only(
        self, entry: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A flipped bit keeps size and times. Once marked, the next use detects it."""
        sealed = seal.load(entry)
        overwrite(entry)
        status = (entry / "bzImage").stat()
        assert sealed is not None
        times = [
            seal.Checked(file.name, file.size, status.st_mtime_ns, status.st_ctime_ns, file.sha256)
            if file.name == "bzImage"
            else file
            for file in sealed.checked
        ]
        forged = msgspec.structs.replace(sealed, checked=tuple(times))
        durable.write(entry / seal.SEAL, msgspec.json.encode(forged))
        assert seal.problem(entry, "kernels") == ""
        assert seal.verify(entry, "kernels") == ["bzImage was changed since it was made"]
        seal.mark(entry, "bzImage was changed since it was made")
        assert "bzImage" in (seal.problem(entry, "kernels") or "")

    def test_mode_and_link_target_are_verified(self, entry: Path) -> None:
        (entry / "bzImage").chmod(0o744)
        (entry / "modules" / "link").unlink()
        (entry / "modules" / "link").symlink_to("elsewhere")
        problems = seal.verify(entry, "kernels")
        assert problems == [
            "bzImage has the mode 744, not 644",
            "modules/link was changed since it was made",
        ]

    def test_permissions_of_group_and_others_are_ignored(self, entry: Path) -> None:
        (entry / "bzImage").chmod(0o600)
        assert seal.verify(entry, "kernels") == []

    def test_changed_manifest_is_detected(self, entry: Path) -> None:
        with open(entry / seal.MANIFEST, "ab") as file:
            file.write(b"f 644 0 0 - x\n")
        assert seal.verify(entry, "kernels") == ["its manifest does not match its seal"]


class TestMake:
    def test_setuid_bits_are_dropped(self, entry: Path) -> None:
        (entry / "bzImage").chmod(0o6755)
        seal.make(entry, "kernels")
        assert (entry / "bzImage").stat().st_mode & 0o7777 == 0o755
        assert seal.problem(entry, "kernels") == ""

    @pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600)])
    def test_files_get_the_read_permissions_of_the_entry(
        self, entry: Path, folder: int, file: int
    ) -> None:
        """QEMU writes a snapshot with mode 0600."""
        entry.chmod(folder)
        (entry / "bzImage").chmod(0o600)
        seal.make(entry, "snapshots")
        assert (entry / "bzImage").stat().st_mode & 0o777 == file

    def test_fifo_is_listed_and_not_opened(self, entry: Path) -> None:
        os.mkfifo(entry / "modules" / "pipe")
        seal.make(entry, "kernels")
        assert seal.verify(entry, "kernels") == []

    def test_seal_left_by_a_build_is_replaced(self, entry: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        for name in (seal.SEAL, seal.MANIFEST):
            (entry / name).unlink()
            (entry / name).symlink_to(victim)
        seal.make(entry, "kernels")
        assert victim.read_text() == "precious"
        assert seal.verify(entry, "kernels") == []

    def test_tree_deeper_than_path_max_is_a_failure(self, tmp_path: Path) -> None:
        os.chdir(tmp_path)
        top = tmp_path / "entry"
        top.mkdir()
        os.chdir(top)
        for _ in range(450):
            Path("folder-of-ten").mkdir()
            os.chdir("folder-of-ten")
        os.chdir("/")
        with pytest.raises(Failure, match="nested too deep"):
            seal.make(top, "sources")
        trees.remove(top)

    def test_hashes_of_hard_linked_files_are_reused(
        self, entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other"
        shutil.copytree(entry, other, symlinks=True, copy_function=os.link)
        (other / "kernel.json").unlink()
        (other / "kernel.json").write_bytes(b"[]")
        hashed: list[str] = []

        def recorded(descriptor: int) -> str:
            hashed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            return real(descriptor)

        real = listing.sha256_of
        monkeypatch.setattr(listing, "sha256_of", recorded)
        seal.make(other, "kernels", like=entry)
        assert hashed == ["kernel.json"]
        assert seal.verify(other, "kernels") == []

    @pytest.mark.parametrize(
        "name", [b"a b", b"a\\nb", b"a\nb", b"\\", b"\xff\xfe", b" x", b"a\rb"]
    )
    def test_any_file_name_survives(self, tmp_path: Path, name: bytes) -> None:
        entry = tmp_path / "entry"
        entry.mkdir()
        Path(os.fsdecode(os.fsencode(entry) + b"/" + name)).write_bytes(b"x")
        seal.make(entry, "kernels")
        assert seal.problem(entry, "kernels") == ""
        assert seal.verify(entry, "kernels") == []
        assert [line.name for line in seal.contents(entry)] == [name]


def test_every_unsealed_kind_has_a_reason() -> None:
    assert all(seal.UNSEALED.values())
    assert not seal.is_sealed("builds")
    assert not seal.is_sealed("ccache/debian")
    for kind in ("kernels", "images", "modules", "snapshots", "roots", "sources"):
        assert seal.is_sealed(kind)
