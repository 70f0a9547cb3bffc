# SPDX-License-Identifier: GPL-2.0-or-later
"""Seals: whatever is done to an entry's files shows, and an entry left alone costs no hashing."""

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
    """The same size, and the old times by the program's own will."""
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
    def test_an_entry_as_it_was_made(self, entry: Path) -> None:
        assert seal.problem(entry, "kernels") == ""

    @pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
    def test_damage_shows(self, entry: Path, damage: Callable[[Path], None]) -> None:
        damage(entry)
        assert DAMAGES[damage] in (seal.problem(entry, "kernels") or "")

    def test_an_untouched_entry_is_not_hashed(
        self, entry: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(seal, "sha256_of", lambda _: pytest.fail("hashed"))
        assert seal.problem(entry, "kernels") == ""

    def test_a_copied_entry_is_hashed_once(
        self, entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(entry, tmp_path / "copy", symlinks=True)
        assert seal.problem(tmp_path / "copy", "kernels") == ""
        monkeypatch.setattr(seal, "sha256_of", lambda _: pytest.fail("hashed again"))
        assert seal.problem(tmp_path / "copy", "kernels") == ""

    def test_a_copy_that_was_cut_short(self, entry: Path, tmp_path: Path) -> None:
        shutil.copytree(entry, tmp_path / "copy", symlinks=True)
        os.truncate(tmp_path / "copy" / "bzImage", 4999)
        assert "bzImage" in (seal.problem(tmp_path / "copy", "kernels") or "")

    def test_an_entry_without_a_seal(self, entry: Path) -> None:
        """From before there were seals."""
        for name in (seal.SEAL, seal.MANIFEST):
            (entry / name).unlink()
        assert seal.problem(entry, "kernels") is None

    def test_what_changes_by_design_may_change_but_has_to_be_read(self, entry: Path) -> None:
        (entry / "times.json").write_text("{}")
        seal.make(entry, "snapshots")
        (entry / "times.json").write_text('{"boot_s": 1.5}')
        assert seal.problem(entry, "snapshots") == ""
        os.truncate(entry / "times.json", 0)
        assert "cannot read" in (seal.problem(entry, "snapshots") or "")

    def test_of_many_files_the_largest_and_those_on_top(self, tmp_path: Path) -> None:
        tree = tmp_path / "entry" / "tree"
        tree.mkdir(parents=True)
        for number in range(seal.FEW + 100):
            (tree / f"{number:04}").write_bytes(bytes(10))
        (tree / "large").write_bytes(bytes(100_000))
        (tree.parent / "versions.txt").write_text("x 1\n")
        sealed = seal.make(tree.parent, "roots")
        assert sealed.files == seal.FEW + 102
        assert len(sealed.checked) < 3 * seal.SAMPLE
        assert {"tree/large", "versions.txt"} <= {one.name for one in sealed.checked}
        os.truncate(tree / "large", 99_999)
        assert "tree/large has 99999 bytes" in (seal.problem(tree.parent, "roots") or "")


class TestVerify:
    def test_an_entry_as_it_was_made(self, entry: Path) -> None:
        seen: list[int] = []
        assert seal.verify(entry, "kernels", seen.append) == []
        assert sum(seen) == 5008

    @pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
    def test_damage_shows(self, entry: Path, damage: Callable[[Path], None]) -> None:
        damage(entry)
        assert seal.verify(entry, "kernels")

    def test_what_a_first_use_cannot_see(
        self, entry: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A bit that the disk lost, with all times as they were; marked, the next use sees it."""
        sealed = seal.load(entry)
        overwrite(entry)
        status = (entry / "bzImage").stat()
        assert sealed is not None
        times = [
            seal.Checked(one.name, one.size, status.st_mtime_ns, status.st_ctime_ns, one.sha256)
            if one.name == "bzImage"
            else one
            for one in sealed.checked
        ]
        forged = msgspec.structs.replace(sealed, checked=tuple(times))
        durable.write(entry / seal.SEAL, msgspec.json.encode(forged))
        assert seal.problem(entry, "kernels") == ""
        assert seal.verify(entry, "kernels") == ["bzImage was changed since it was made"]
        seal.mark(entry, "bzImage was changed since it was made")
        assert "bzImage" in (seal.problem(entry, "kernels") or "")

    def test_a_mode_and_a_link_count(self, entry: Path) -> None:
        (entry / "bzImage").chmod(0o744)
        (entry / "modules" / "link").unlink()
        (entry / "modules" / "link").symlink_to("elsewhere")
        found = seal.verify(entry, "kernels")
        assert found == [
            "bzImage has the mode 744, not 644",
            "modules/link was changed since it was made",
        ]

    def test_rights_of_others_depend_on_the_copier(self, entry: Path) -> None:
        (entry / "bzImage").chmod(0o600)
        assert seal.verify(entry, "kernels") == []

    def test_a_manifest_that_was_changed(self, entry: Path) -> None:
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
    def test_who_may_read_the_entry_may_read_its_files(
        self, entry: Path, folder: int, file: int
    ) -> None:
        """QEMU saves a guest for its user alone."""
        entry.chmod(folder)
        (entry / "bzImage").chmod(0o600)
        seal.make(entry, "snapshots")
        assert (entry / "bzImage").stat().st_mode & 0o777 == file

    def test_a_pipe_is_listed_and_not_opened(self, entry: Path) -> None:
        os.mkfifo(entry / "modules" / "pipe")
        seal.make(entry, "kernels")
        assert seal.verify(entry, "kernels") == []

    def test_a_seal_that_a_build_left_is_no_seal(self, entry: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        for name in (seal.SEAL, seal.MANIFEST):
            (entry / name).unlink()
            (entry / name).symlink_to(victim)
        seal.make(entry, "kernels")
        assert victim.read_text() == "precious"
        assert seal.verify(entry, "kernels") == []

    def test_a_tree_that_is_too_deep_for_a_path(self, tmp_path: Path) -> None:
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

    def test_hashes_of_files_that_are_shared_are_taken_over(
        self, entry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        other = tmp_path / "other"
        shutil.copytree(entry, other, symlinks=True, copy_function=os.link)
        (other / "kernel.json").unlink()
        (other / "kernel.json").write_bytes(b"[]")
        hashed: list[str] = []

        def noted(descriptor: int) -> str:
            hashed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
            return real(descriptor)

        real = listing.sha256_of
        monkeypatch.setattr(listing, "sha256_of", noted)
        seal.make(other, "kernels", like=entry)
        assert hashed == ["kernel.json"]
        assert seal.verify(other, "kernels") == []

    @pytest.mark.parametrize(
        "name", [b"a b", b"a\\nb", b"a\nb", b"\\", b"\xff\xfe", b" x", b"a\rb"]
    )
    def test_any_name(self, tmp_path: Path, name: bytes) -> None:
        entry = tmp_path / "entry"
        entry.mkdir()
        Path(os.fsdecode(os.fsencode(entry) + b"/" + name)).write_bytes(b"x")
        seal.make(entry, "kernels")
        assert seal.problem(entry, "kernels") == ""
        assert seal.verify(entry, "kernels") == []
        assert [line.name for line in seal.contents(entry)] == [name]


def test_every_kind_without_a_seal_has_a_reason() -> None:
    assert all(seal.UNSEALED.values())
    assert not seal.is_sealed("builds")
    assert not seal.is_sealed("ccache/debian")
    for kind in ("kernels", "images", "modules", "snapshots", "roots", "sources"):
        assert seal.is_sealed(kind)
