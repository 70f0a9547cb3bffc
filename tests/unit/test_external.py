# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of modules outside the kernel tree: what they may hold, and which kernels they fit."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kernel.artifact import Kernel
from kernel.host.errors import Failed, UserError
from kernel.host.settings import PROJECT
from modules import external, manifest
from modules.manifest import Loaded, NoDisks
from tests.unit import samples

MANIFEST = """\
language = "C"
modules = ["mine"]

[requires]
kernel = ">=6.11"
symbols = ["BLOCK"]

[disks]
kind = "none"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m := mine.o\n")
    (folder / "mine.c").write_text("int mine;\n")
    (folder / "manifest.toml").write_text(MANIFEST)
    return folder


class TestFolder:
    def test_its_name_is_the_driver_s(self, folder: Path) -> None:
        driver = manifest.of_folder(folder)
        assert (driver.name, driver.folder, driver.out_of_tree) == ("mine", str(folder), True)
        assert isinstance(driver.disks, NoDisks)

    def test_the_examples(self) -> None:
        paths = [
            path for path in (PROJECT / manifest.EXAMPLE).parents[1].iterdir() if path.is_dir()
        ]
        drivers = {path.name: manifest.of_folder(path) for path in paths}
        assert set(drivers) == {"c_null", "rust_null", "rust_pci_nvme"}
        for name in ("c_null", "rust_null"):
            disks = drivers[name].disks
            assert isinstance(disks, Loaded)
            assert disks.pins_module == (name == "c_null")
            assert drivers[drivers[name].counterpart].counterpart == name
        bind = drivers["rust_pci_nvme"].bind
        assert bind is not None
        assert (bind.devices, bind.competitors) == (("0x1b36:0x0010",), ("nvme",))

    @pytest.mark.parametrize(
        ("name", "words"), [("manifest.toml", "has no manifest.toml"), ("Kbuild", "has no Kbuild")]
    )
    def test_what_it_has_to_hold(self, folder: Path, name: str, words: str) -> None:
        (folder / name).unlink()
        with pytest.raises(UserError, match=words):
            manifest.of_folder(folder)

    def test_a_makefile_will_do(self, folder: Path) -> None:
        (folder / "Kbuild").rename(folder / "Makefile")
        assert manifest.of_folder(folder).name == "mine"

    def test_none_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no module folder .*/gone"):
            manifest.of_folder(tmp_path / "gone")

    @pytest.mark.parametrize("name", ["null_blk", "-v", "a b", "x;reboot", "$(x)"])
    def test_names_that_a_driver_cannot_have(self, folder: Path, name: str) -> None:
        with pytest.raises(UserError, match="a driver cannot be called"):
            manifest.of_folder(folder.rename(folder.with_name(name)))

    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ("[requires]", "[require]", "require"),
            ("symbols =", "symbol =", "symbol"),
            ('kernel = ">=6.11"', 'kernel = "6.11 or so"', "'6.11 or so' is no range of kernels"),
            ('kind = "none"', 'kind = "none"\ndisks = ["x"]', "disks"),
            ('kind = "none"', 'kind = "module"', "disks"),
            ('kind = "none"', 'kind = "module"\ndisks = ["../sda"]', "disks"),
            ('kind = "none"', 'kind = "none"\nparameters = { "a b" = "1" }', "parameters"),
            ('modules = ["mine"]', 'modules = ["mine"]\nsymbols = ["MINE"]', "no Kconfig symbol"),
        ],
    )
    def test_a_bad_manifest_is_named_with_the_place(
        self, folder: Path, old: str, new: str, words: str
    ) -> None:
        assert old in MANIFEST
        (folder / "manifest.toml").write_text(MANIFEST.replace(old, new, 1))
        with pytest.raises(UserError) as caught:
            manifest.of_folder(folder)
        assert caught.value.what.startswith(f"{folder}/manifest.toml: ")
        assert words in caught.value.what


class TestKernels:
    def reason(self, folder: Path, kernel: Kernel, language: str = "C") -> str:
        text = MANIFEST.replace('"C"', f'"{language}"')
        (folder / "manifest.toml").write_text(text)
        return manifest.of_folder(folder).missing_from(kernel)

    def kernel(self, path: Path, config: str = "CONFIG_BLOCK=y\n", **facts: object) -> Kernel:
        kernel = samples.kernel(path / "kernel", config)
        return Kernel(kernel.path, msgspec.structs.replace(kernel.info, **facts))

    def test_one_that_fits(self, folder: Path, tmp_path: Path) -> None:
        assert self.reason(folder, self.kernel(tmp_path)) == ""

    def test_one_that_is_too_old(self, folder: Path, tmp_path: Path) -> None:
        kernel = self.kernel(tmp_path, release="6.6.3", name="6.6")
        reason = self.reason(folder, kernel)
        assert reason == "mine needs Linux >=6.11, and this is kernel 6.6 (6.6.3)"

    def test_one_without_what_it_needs(self, folder: Path, tmp_path: Path) -> None:
        reason = self.reason(folder, self.kernel(tmp_path, "CONFIG_BLOCK=m\n"))
        assert reason == "mine needs CONFIG_BLOCK=y, which kernel 7.3 (7.3.4) has not"

    def test_rust_without_rust(self, folder: Path, tmp_path: Path) -> None:
        reason = self.reason(folder, self.kernel(tmp_path), "Rust")
        assert reason.endswith("kernel 7.3 (7.3.4) has none: it is built without CONFIG_RUST")

    def test_rust_for_a_kernel_of_debian_s(self, folder: Path, tmp_path: Path) -> None:
        """Its headers have none of the metadata that Rust code is compiled with."""
        config = "CONFIG_BLOCK=y\nCONFIG_RUST=y\n"
        reason = self.reason(folder, self.kernel(tmp_path, config, toolchain={}), "Rust")
        assert reason == (
            "mine is Rust, and kernel 7.3 (7.3.4) is Debian's own build: its headers serve C"
        )

    def test_rust_where_it_was_left_out(self, folder: Path, tmp_path: Path) -> None:
        kernel = self.kernel(tmp_path, left_out={"Rust": "the root toolchain has no bindgen"})
        reason = self.reason(folder, kernel, "Rust")
        assert reason.endswith("has none: the root toolchain has no bindgen")


class TestSources:
    def test_what_a_build_left_does_not_count(self, folder: Path) -> None:
        before = dict(external._sources(folder))
        assert set(before) == {"Kbuild", "mine.c", "manifest.toml"}
        for name in ("mine.o", "mine.ko", "mine.mod", "mine.mod.c", ".mine.o.cmd", "modules.order"):
            (folder / name).write_text("of another kernel")
        (folder / ".git").mkdir()
        (folder / ".git" / "HEAD").write_text("x")
        assert dict(external._sources(folder)) == before

    def test_what_is_in_folders_counts(self, folder: Path) -> None:
        (folder / "more").mkdir()
        (folder / "more" / "x.h").write_text("")
        assert "more/x.h" in dict(external._sources(folder))

    def test_a_module_that_was_not_made_is_told(self, folder: Path, tmp_path: Path) -> None:
        made = tmp_path / "made"
        made.mkdir()
        (made / "other.ko").touch()
        with pytest.raises(Failed, match=r"does not make mine.ko, .*: it made other.ko"):
            external._collect(manifest.of_folder(folder), made, tmp_path)
