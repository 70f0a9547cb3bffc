# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv init`: the manifest it drafts for a folder, and when it refuses."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.modules import draft, looks, manifest
from blockyard.modules.folder import sources
from blockyard.modules.manifest import Configfs, NoDisks, Pci, StaticDisks
from blockyard.tests.unit.test_cli import inv

EXAMPLES = PROJECT / "modules" / "examples"


def example(name: str, folder: Path) -> Path:
    """A copy of one of our examples without its manifest."""
    shutil.copytree(EXAMPLES / name, folder)
    (folder / "manifest.toml").unlink()
    return folder


def made(folder: Path, **files: str) -> Path:
    """A folder of a module `mine` with a Kbuild and these C files."""
    folder.mkdir()
    (folder / "Kbuild").write_text("obj-m := mine.o\n")
    for name, text in files.items():
        (folder / f"{name}.c").write_text(text + '\nMODULE_LICENSE("GPL");\n')
    return folder


class TestExamples:
    """The draft agrees with the example's manifest, as far as its sources show it."""

    @pytest.mark.parametrize("name", ["c_null", "rust_null"])
    def test_null_disks(self, name: str, tmp_path: Path) -> None:
        folder = example(name, tmp_path / "cnull-1.2.3")
        draft.write(folder)
        driver, expected = manifest.of_folder(folder), manifest.of_folder(EXAMPLES / name)
        assert (driver.language, driver.modules) == (expected.language, expected.modules)
        assert driver.disks == expected.disks
        assert driver.requires.symbols == expected.requires.symbols

    def test_pci_driver(self, tmp_path: Path) -> None:
        folder = example("rust_pci_nvme", tmp_path / "mine")
        draft.write(folder)
        driver = manifest.of_folder(folder)
        assert isinstance(driver.disks, NoDisks)
        assert driver.bind is not None
        assert (driver.bind.driver, driver.bind.devices) == ("rust_pci_nvme", ("0x1b36:0x0010",))
        assert driver.requires.symbols == ("RUST", "PCI", "MODULE_UNLOAD")


class TestDisks:
    def test_configfs(self, tmp_path: Path) -> None:
        code = 'blk_mq_alloc_disk(); .ci_namebuf = "nullb",\nconfigfs_register_subsystem(&x);'
        code += "\nmodule_param_named(nr_devices, x, uint, 0444);"
        draft.write(folder := made(tmp_path / "mine", mine=code))
        disks = manifest.of_folder(folder).disks
        assert disks == Configfs("/sys/kernel/config/nullb", {"nr_devices": "0"})

    def test_pci_class(self, tmp_path: Path) -> None:
        code = "pci_register_driver(&x); device_add_disk(); PCI_CLASS_STORAGE_EXPRESS"
        draft.write(folder := made(tmp_path / "mine", mine=code))
        assert manifest.of_folder(folder).disks == Pci("0x010802")

    def test_pci_device_table(self, tmp_path: Path) -> None:
        code = "#define MY_DEVICE 0xbeef\nmodule_pci_driver(x); add_disk();\n"
        code += 'struct pci_driver x = { .name = "my-disk", };\n'
        code += "{ PCI_DEVICE(0x1234, MY_DEVICE) }, { PCI_DEVICE(UNKNOWN, 1) }"
        draft.write(folder := made(tmp_path / "mine", mine=code))
        driver = manifest.of_folder(folder)
        assert driver.bind is not None
        assert (driver.bind.driver, driver.bind.devices) == ("my-disk", ("0x1234:0xbeef",))

    @pytest.mark.parametrize(
        ("code", "disk"),
        [
            ('strscpy(d->disk_name, "cnull0");', "cnull0"),
            ('snprintf(d->disk_name, DISK_NAME_LEN, "nb%d", i);', "nb0"),
            ('sprintf(disk->disk_name, "x%u", i);', "x0"),
            ('/* disk_name "no0" */', "mine0"),
        ],
    )
    def test_names_of_static_disks(self, tmp_path: Path, code: str, disk: str) -> None:
        draft.write(folder := made(tmp_path / "mine", mine=f"add_disk(); {code}"))
        disks = manifest.of_folder(folder).disks
        assert isinstance(disks, StaticDisks)
        assert disks.disks == (disk,)

    def test_module_without_disks(self, tmp_path: Path) -> None:
        draft.write(folder := made(tmp_path / "mine", mine="EXPORT_SYMBOL_GPL(x);"))
        assert manifest.of_folder(folder).disks == NoDisks()

    def test_modules_come_from_dkms_conf(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "mine", mine="")
        (folder / "dkms.conf").write_text('PACKAGE_NAME="p"\nBUILT_MODULE_NAME[0]="mine"\n')
        draft.write(folder)
        driver = manifest.of_folder(folder)
        assert (driver.name, driver.modules) == ("p", ("mine",))


def test_dkms_conf_template_is_ignored(tmp_path: Path) -> None:
    folder = made(tmp_path / "mine", mine="")
    (folder / "dkms.conf").write_text('PACKAGE_NAME="#NAME#"\nBUILT_MODULE_NAME[0]="@name@"\n')
    draft.write(folder)
    driver = manifest.of_folder(folder)
    assert (driver.name, driver.modules) == ("mine", ("mine",))


def test_command_writes_the_manifest(tmp_path: Path) -> None:
    folder = example("c_null", tmp_path / "my null")
    printed = inv("init", str(folder), "--dry-run")
    assert (printed.returncode, (folder / "manifest.toml").exists()) == (2, False)
    assert "a driver cannot be named 'my null'" in printed.stderr
    folder = folder.rename(tmp_path / "mine")
    printed = inv("init", str(folder), "--dry-run")
    assert (printed.returncode, (folder / "manifest.toml").exists()) == (0, False)
    done = inv("init", str(folder))
    assert (folder / "manifest.toml").read_text() == printed.stdout
    assert f"./inv build --module {folder}\n" in done.stdout
    again = inv("init", str(folder))
    assert (again.returncode, "already exists" in again.stderr) == (2, True)


class TestRefusals:
    def test_existing_manifest_is_not_overwritten(self, tmp_path: Path) -> None:
        shutil.copytree(EXAMPLES / "c_null", tmp_path / "mine")
        before = (tmp_path / "mine" / "manifest.toml").read_text()
        with pytest.raises(UsageError, match="manifest.toml already exists"):
            draft.write(tmp_path / "mine")
        assert (tmp_path / "mine" / "manifest.toml").read_text() == before

    def test_link_is_not_written_through(self, tmp_path: Path) -> None:
        folder = example("c_null", tmp_path / "mine")
        (folder / "manifest.toml").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="already exists"):
            draft.write(folder)
        assert not (tmp_path / "elsewhere").exists()

    def test_folder_without_a_makefile_is_refused(self, tmp_path: Path) -> None:
        folder = made(tmp_path / "mine", mine="")
        (folder / "Kbuild").unlink()
        with pytest.raises(UsageError, match="no Kbuild and no Makefile") as caught:
            draft.text(folder)
        assert caught.value.hint == "write a Kbuild of one line: obj-m := mine.o"

    def test_makefile_without_a_module_is_refused(self, tmp_path: Path) -> None:
        (folder := made(tmp_path / "mine", mine="")).joinpath("Kbuild").write_text("all:\n")
        with pytest.raises(UsageError, match="no makefile in .* builds a module"):
            draft.text(folder)

    def test_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such folder"):
            draft.text(tmp_path / "gone")

    def test_error_about_a_missing_manifest_offers_the_command(self, tmp_path: Path) -> None:
        folder = example("c_null", tmp_path / "mine")
        with pytest.raises(UsageError, match="has no manifest.toml") as caught:
            manifest.of_folder(folder)
        assert f"./inv init {folder}" in caught.value.hint


@pytest.mark.parametrize(
    "piece",
    [
        "struct pci_driver a = {",
        "/*",
        "disk_name",
        "DeviceId::from_id(aaaaaaaaaaaaaaaa",
        "\n\n\n\n\n",
        ".build(",
        "module_param(",
        "#define x ",
        '.ci_name = "',
    ],
)
def test_hostile_sources_are_read_in_linear_time(tmp_path: Path, piece: str) -> None:
    folder = made(tmp_path / "mine", mine=piece * (500_000 // len(piece)))
    started = time.process_time()
    looks.look(sources(folder))
    assert time.process_time() - started < 4
