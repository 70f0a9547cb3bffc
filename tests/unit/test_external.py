# SPDX-License-Identifier: GPL-2.0-or-later
"""Folders of out-of-tree modules: their manifests, the kernels they fit, how make is run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import selection
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import external, manifest, plan
from blockyard.modules.external import MakeOptions
from blockyard.modules.folder import sources
from blockyard.modules.manifest import NoDisks, StaticDisks
from blockyard.tests.unit import samples

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
    def test_driver_has_the_name_of_the_folder(self, folder: Path) -> None:
        driver = manifest.of_folder(folder)
        assert (driver.name, driver.folder, driver.out_of_tree) == ("mine", str(folder), True)
        assert isinstance(driver.disks, NoDisks)

    def test_manifests_of_the_examples(self) -> None:
        paths = [
            path for path in (PROJECT / manifest.EXAMPLE).parents[1].iterdir() if path.is_dir()
        ]
        drivers = {path.name: manifest.of_folder(path) for path in paths}
        assert set(drivers) == {"c_null", "rust_null", "rust_pci_nvme"}
        for name in ("c_null", "rust_null"):
            disks = drivers[name].disks
            assert isinstance(disks, StaticDisks)
            assert disks.holds_module_ref == (name == "c_null")
            assert drivers[drivers[name].counterpart].counterpart == name
        bind = drivers["rust_pci_nvme"].bind
        assert bind is not None
        assert (bind.devices, bind.competitors) == (("0x1b36:0x0010",), ("nvme",))

    @pytest.mark.parametrize(
        ("name", "message"),
        [("manifest.toml", "has no manifest.toml"), ("Kbuild", "has no Kbuild")],
    )
    def test_folder_needs_a_manifest_and_a_makefile(
        self, folder: Path, name: str, message: str
    ) -> None:
        (folder / name).unlink()
        with pytest.raises(UsageError, match=message):
            manifest.of_folder(folder)

    def test_makefile_instead_of_kbuild(self, folder: Path) -> None:
        (folder / "Kbuild").rename(folder / "Makefile")
        assert manifest.of_folder(folder).name == "mine"

    def test_missing_folder_is_a_usage_error(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such module folder: .*/gone"):
            manifest.of_folder(tmp_path / "gone")

    @pytest.mark.parametrize("name", ["null_blk", "-v", "a b", "x;reboot", "$(x)"])
    def test_invalid_driver_name_is_a_usage_error(self, folder: Path, name: str) -> None:
        with pytest.raises(UsageError, match="a driver cannot be named"):
            manifest.of_folder(folder.rename(folder.with_name(name)))

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("[requires]", "[require]", "require"),
            ("symbols =", "symbol =", "symbol"),
            ('kernel = ">=6.11"', 'kernel = "6.11 or so"', "invalid range of kernels '6.11 or so'"),
            ('kind = "none"', 'kind = "none"\ndisks = ["x"]', "disks"),
            ('kind = "none"', 'kind = "module"', "disks"),
            ('kind = "none"', 'kind = "module"\ndisks = ["../sda"]', "disks"),
            ('kind = "none"', 'kind = "none"\nparameters = { "a b" = "1" }', "parameters"),
            (
                'modules = ["mine"]',
                'modules = ["mine"]\nsymbols = ["MINE"]',
                "cannot have `symbols`",
            ),
        ],
    )
    def test_invalid_manifest_is_a_usage_error_with_its_path(
        self, folder: Path, old: str, new: str, message: str
    ) -> None:
        assert old in MANIFEST
        (folder / "manifest.toml").write_text(MANIFEST.replace(old, new, 1))
        with pytest.raises(UsageError) as caught:
            manifest.of_folder(folder)
        assert caught.value.what.startswith(f"{folder}/manifest.toml: ")
        assert message in caught.value.what


class TestKernels:
    def reason(self, folder: Path, kernel: Kernel, language: str = "C") -> str:
        text = MANIFEST.replace('"C"', f'"{language}"')
        (folder / "manifest.toml").write_text(text)
        return manifest.of_folder(folder).missing_from(kernel)

    def kernel(self, path: Path, config: str = "CONFIG_BLOCK=y\n", **facts: object) -> Kernel:
        kernel = samples.kernel(path / "kernel", config)
        return Kernel(kernel.path, msgspec.structs.replace(kernel.info, **facts))

    def test_kernel_that_fits(self, folder: Path, tmp_path: Path) -> None:
        assert self.reason(folder, self.kernel(tmp_path)) == ""

    def test_kernel_that_is_too_old(self, folder: Path, tmp_path: Path) -> None:
        kernel = self.kernel(tmp_path, release="6.6.3", name="6.6")
        reason = self.reason(folder, kernel)
        assert reason == "mine needs Linux >=6.11, and this is kernel 6.6 (6.6.3)"

    def test_kernel_without_a_required_symbol(self, folder: Path, tmp_path: Path) -> None:
        reason = self.reason(folder, self.kernel(tmp_path, "CONFIG_BLOCK=m\n"))
        assert reason == "mine needs CONFIG_BLOCK=y, which kernel 7.3 (7.3.4) does not have"

    def test_rust_module_for_a_kernel_without_rust(self, folder: Path, tmp_path: Path) -> None:
        reason = self.reason(folder, self.kernel(tmp_path), "Rust")
        assert reason.endswith("kernel 7.3 (7.3.4) has none: it is built without CONFIG_RUST")

    def test_rust_module_for_a_debian_kernel(self, folder: Path, tmp_path: Path) -> None:
        """Debian's headers lack the metadata for Rust code."""
        config = "CONFIG_BLOCK=y\nCONFIG_RUST=y\n"
        reason = self.reason(folder, self.kernel(tmp_path, config, toolchain={}), "Rust")
        assert reason == (
            "mine is Rust, and kernel 7.3 (7.3.4) is Debian's own build: its headers serve C"
        )

    def test_rust_module_for_a_kernel_built_without_rust(
        self, folder: Path, tmp_path: Path
    ) -> None:
        kernel = self.kernel(tmp_path, omitted={"Rust": "the pinned toolchain has no bindgen"})
        reason = self.reason(folder, kernel, "Rust")
        assert reason.endswith("has none: the pinned toolchain has no bindgen")


class TestNames:
    @pytest.mark.parametrize(
        ("folder", "name"),
        [
            ("cnull-1.2.3", "cnull"),
            ("c-null-v2", "c-null"),
            ("my.driver", "my_driver"),
            ("nvme-1.0", "nvme-1_0"),  # nvme is an in-tree driver
            ("rnull2", "rnull2"),
        ],
    )
    def test_driver_name_from_a_folder_name(self, folder: str, name: str, tmp_path: Path) -> None:
        (tmp_path / folder).mkdir()
        assert manifest.name_of(tmp_path / folder) == name

    @pytest.mark.parametrize(
        ("package", "name"), [("cnull", "cnull"), ("null_blk", "mine"), ("a b", "mine")]
    )
    def test_driver_name_from_dkms_conf(self, folder: Path, package: str, name: str) -> None:
        (folder / "dkms.conf").write_text(f'PACKAGE_NAME="{package}"\n')
        assert manifest.of_folder(folder).name == name

    def test_plan_finds_a_driver_by_its_name(self, folder: Path) -> None:
        folder = folder.rename(folder.with_name("mine-1.2.3"))
        plan = selection.select("mine", outside=[manifest.of_folder(folder)]).plan()
        assert plan.manifest("mine").folder == folder.name
        assert plan.owner(folder) == "mine"
        assert plan.owner(folder.parent) == ""

    def test_two_folders_of_one_driver_name_are_a_usage_error(self, folder: Path) -> None:
        other = folder.with_name("mine-2")
        other.mkdir()
        for file in folder.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        with pytest.raises(UsageError, match="mine-2 and .*/mine are both the driver 'mine'"):
            plan.out_of_tree(KernelSpec(modules=(folder, other)))


class TestHow:
    """Arguments of make, from the folder and the kernel."""

    def how(self, folder: Path, config: str = "CONFIG_BLOCK=y\n") -> MakeOptions:
        kernel = samples.kernel(folder.parent / "kernel", config)
        return external._make_options(manifest.of_folder(folder), sources(folder), kernel, {})

    def test_plain_folder(self, folder: Path) -> None:
        assert self.how(folder).arguments() == ["M=/mnt/module", "PWD=/mnt/module"]

    def test_symbol_of_the_modules_own_kconfig(self, folder: Path) -> None:
        (folder / "Kbuild").write_text("obj-$(CONFIG_MINE) += mine.o\n")
        arguments = ["CONFIG_MINE=m", "KCFLAGS=-DCONFIG_MINE_MODULE=1"]
        assert self.how(folder).arguments()[2:] == arguments
        assert self.how(folder, "CONFIG_MINE=m\n").arguments()[2:] == []

    def test_symbols_from_dkms_conf(self, folder: Path) -> None:
        (folder / "dkms.conf").write_text('MAKE="make CONFIG_FAST=y CONFIG_BLOCK=y all"\n')
        assert self.how(folder).symbols == {"CONFIG_FAST": "y"}

    def test_makefile_in_a_subfolder(self, folder: Path) -> None:
        (folder / "src").mkdir()
        (folder / "Kbuild").rename(folder / "src" / "Kbuild")
        (folder / "dkms.conf").write_text('BUILT_MODULE_LOCATION[0]="src"\n')
        assert self.how(folder).arguments()[0] == "M=/mnt/module/src"

    @pytest.mark.parametrize(
        "location", ["..", "../../etc", "/etc", "a/../..", "$(shell id)", "no"]
    )
    def test_makefile_outside_of_the_folder_is_ignored(self, folder: Path, location: str) -> None:
        """BUILT_MODULE_LOCATION counts only for subfolders."""
        (folder / "dkms.conf").write_text(f"BUILT_MODULE_LOCATION[0]='{location}'\n")
        assert self.how(folder).arguments()[0] == "M=/mnt/module"
        (folder / "Kbuild").unlink()
        (folder.parent / "Kbuild").touch()
        with pytest.raises(UsageError, match="has no Kbuild and no Makefile"):
            manifest.of_folder(folder)

    def test_link_to_the_folder_of_the_makefile(self, folder: Path) -> None:
        (folder / "src").mkdir()
        (folder / "Kbuild").rename(folder / "src" / "Kbuild")
        (folder / "v1").symlink_to("src")
        (folder / "dkms.conf").write_text('BUILT_MODULE_LOCATION[0]="v1"\n')
        assert self.how(folder).subfolder == "src"

    def test_symbols_of_earlier_modules(self, tmp_path: Path) -> None:
        arguments = MakeOptions(before={"a": tmp_path, "b": tmp_path}).arguments()
        files = "/mnt/symbols/a/Module.symvers /mnt/symbols/b/Module.symvers"
        assert arguments[2:] == [f"KBUILD_EXTRA_SYMBOLS={files}"]

    def test_hint_about_extra_cflags(self, folder: Path) -> None:
        (folder / "Kbuild").write_text("obj-m := mine.o\nEXTRA_CFLAGS += -DX\n")
        hint = "Kbuild sets EXTRA_CFLAGS, which Linux 6.15 removed: use ccflags-y"
        assert self.how(folder).hint == hint

    def test_hint_about_a_file_outside_of_the_build(self, folder: Path) -> None:
        (folder.parent / "x.h").write_text("")
        (folder / "mine.c").write_text('#include "../x.h"\n')
        hint = self.how(folder).hint
        assert hint.startswith(f"{folder}/mine.c names ../x.h, which the build cannot see")


class TestKey:
    """The cache key of a module."""

    @pytest.mark.parametrize(
        ("toolchain", "same"), [({"clang": "19.1"}, True), ({}, False)], ids=["ours", "prebuilt"]
    )
    def test_compiler_is_part_of_the_key_once(
        self,
        folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        toolchain: dict[str, str],
        same: bool,
    ) -> None:
        """A kernel built here has the compiler in its key, a prebuilt one does not."""
        keys: list[str] = []

        def get(_kind: str, key: str, *_: object, **__: object) -> Path:
            keys.append(key)
            return tmp_path

        monkeypatch.setattr(store, "get", get)
        kernel = samples.kernel(tmp_path / "kernel")
        kernel = Kernel(kernel.path, msgspec.structs.replace(kernel.info, toolchain=toolchain))
        for root in ("a", "b"):
            tools = samples.tools(tmp_path / root)
            external.build_module(manifest.of_folder(folder), kernel, no_maker, tools)
        assert (keys[0] == keys[1]) == same


def no_maker() -> AbstractContextManager[tuple[Sandbox, list[str]]]:
    raise AssertionError


class TestCollect:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Path:
        (made := tmp_path / "made").mkdir()
        return made

    def collect(self, folder: Path, made: Path, location: str = ".") -> Failure:
        with pytest.raises(Failure) as caught:
            log = made / "log"
            driver = manifest.of_folder(folder)
            external._collect(driver, sources(folder), made, location, made, log)
        assert caught.value.log == made / "log"
        return caught.value

    def test_missing_module_is_named(self, folder: Path, made: Path) -> None:
        (made / "other.ko").touch()
        (folder / "Kbuild").write_text("obj-m := other.o\n")
        error = self.collect(folder, made)
        assert "does not build mine.ko, which its manifest names: make built other.ko" in error.what
        assert error.hint == "the makefiles build other.o: correct `modules` in manifest.toml"

    def test_build_without_modules_is_an_error(self, folder: Path, made: Path) -> None:
        (folder / "Kbuild").write_text("all:\n")
        error = self.collect(folder, made)
        assert "make built nothing" in error.what
        assert error.hint == "no makefile has a line that builds it: add obj-m := mine.o"

    def test_deep_folders_are_refused(self, folder: Path, made: Path) -> None:
        (made / "/".join(["d"] * 200)).mkdir(parents=True)
        assert "more than 64 deep" in self.collect(folder, made).what

    @pytest.mark.parametrize("location", ["src", "src/driver"])
    def test_module_in_a_subfolder_is_collected(
        self, folder: Path, made: Path, location: str
    ) -> None:
        (made / location).mkdir(parents=True)
        (made / location / "mine.ko").write_text("module")
        (made / location / "Module.symvers").write_text("symbols")
        driver = manifest.of_folder(folder)
        external._collect(driver, sources(folder), made, location, made / "into", made / "log")
        assert (made / "into" / "mine.ko").read_text() == "module"
        assert (made / "into" / "Module.symvers").read_text() == "symbols"

    @pytest.mark.parametrize("location", ["src", "src/driver"])
    def test_link_in_place_of_a_folder_is_refused(
        self, folder: Path, made: Path, tmp_path: Path, location: str
    ) -> None:
        """Neither contents nor names of host files must leak."""
        (tmp_path / "host" / "driver").mkdir(parents=True)
        for host in (tmp_path / "host", tmp_path / "host" / "driver"):
            (host / "mine.ko").write_text("secret")
            (host / "Module.symvers").write_text("secret")
        (made / "src").symlink_to(tmp_path / "host")
        error = self.collect(folder, made, location)
        assert "output of make: cannot read" in error.what
        assert not (made / "mine.ko").exists()
        assert not (made / "Module.symvers").exists()

    def test_link_is_not_a_module(self, folder: Path, made: Path) -> None:
        (made / "mine.ko").symlink_to("/etc/passwd")
        assert "make built nothing" in self.collect(folder, made).what


class TestPatches:
    """Patches of a manifest must be inside its folder."""

    @pytest.mark.parametrize("series", ["/etc", "../../../etc/passwd", "/dev/zero", "out", ".."])
    def test_series_outside_of_the_folder_is_refused(self, folder: Path, series: str) -> None:
        text = MANIFEST.replace("[requires]", f'series = "{series}"\nsymbols = ["M"]\n[requires]')
        (folder / "manifest.toml").write_text(text)
        (folder / "out").symlink_to("/etc")
        with pytest.raises(UsageError, match="series = .* leads out of its folder"):
            manifest.of_folder(folder)

    def test_link_among_patches_is_refused(self, folder: Path) -> None:
        text = MANIFEST.replace("[requires]", 'series = "patches"\nsymbols = ["M"]\n[requires]')
        (folder / "manifest.toml").write_text(text)
        (folder / "patches").mkdir()
        (folder / "patches" / "1.patch").symlink_to("/etc/passwd")
        with pytest.raises(UsageError, match="1.patch is a link to /etc/passwd"):
            manifest.of_folder(folder)

    @pytest.mark.parametrize("name", ["manifest.toml", "mine.config"])
    def test_link_in_place_of_a_file_is_refused(self, folder: Path, name: str) -> None:
        if name == "mine.config":
            text = MANIFEST.replace("[requires]", 'series = "p"\nsymbols = ["M"]\n[requires]')
            (folder / "manifest.toml").write_text(text)
            (folder / "p").write_text("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to("/etc/passwd")
        with pytest.raises(UsageError, match=f"{name} is not a regular file"):
            manifest.of_folder(folder)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [("", "x = " + "[" * 5000, "nests more than 16 levels"), ("x", "", "line 1")],
)
def test_malformed_manifest_is_a_usage_error(
    folder: Path, before: str, after: str, message: str
) -> None:
    (folder / "manifest.toml").write_text(f"{before}{MANIFEST}\n{after}")
    with pytest.raises(UsageError, match=message):
        manifest.of_folder(folder)


def test_manifest_with_a_byte_order_mark(folder: Path) -> None:
    (folder / "manifest.toml").write_text("\ufeff" + MANIFEST)
    assert manifest.of_folder(folder).modules == ("mine",)
