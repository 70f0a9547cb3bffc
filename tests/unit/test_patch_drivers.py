# SPDX-License-Identifier: GPL-2.0-or-later
"""Drivers that are patches: the option --series, and manifests with a series."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan
from blockyard.tests.unit import samples

PATCH = """\
--- a/drivers/block/Kconfig
+++ b/drivers/block/Kconfig
@@ -1 +1,3 @@
 # block
+config MY_DISK
+	tristate "Mine"
"""
MANIFEST = """\
language = "C"
modules = ["my_disk"]
symbols = ["MY_DISK"]
series = "patches"

[disks]
kind = "module"
disks = ["mydisk0"]
"""
FRAGMENT = "CONFIG_MY_DISK=m\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my_disk"
    (folder / "patches").mkdir(parents=True)
    (folder / "manifest.toml").write_text(MANIFEST)
    (folder / "my_disk.config").write_text(FRAGMENT)
    (folder / "patches" / "0001-mine.patch").write_text(PATCH)
    return folder


def tree(path: Path, kconfig: str) -> Tree:
    (path / "drivers/block").mkdir(parents=True)
    (path / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
    (path / "drivers/block/Kconfig").write_text(kconfig)
    return Tree(path, Other(f"test {path}"))


class TestOption:
    def test_series_is_part_of_the_kernel_spec(self, folder: Path) -> None:
        spec = KernelSpec(series=(folder / "patches",))
        assert spec.name == "7.3 patches"
        assert spec.options[-2:] == ["--series", str(folder / "patches")]

    def test_missing_series_is_refused_early(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such patch series"):
            KernelSpec(series=(tmp_path / "gone",)).checked()

    def test_debian_build_refuses_a_series(self, folder: Path, tmp_path: Path) -> None:
        spec = KernelSpec("7.2-debian", series=(folder / "patches",))
        with pytest.raises(UsageError, match="7.2-debian was built by Debian: .*patches"):
            plan.kernel(spec, samples.tools(tmp_path / "tools"))


class TestManifest:
    def test_driver_is_in_tree(self, folder: Path) -> None:
        driver = manifest.of_folder(folder)
        assert (driver.name, driver.out_of_tree) == ("my_disk", False)
        assert driver.patches == folder / "patches"
        assert driver.fragment.text == FRAGMENT

    def test_driver_needs_its_symbol_in_the_tree(self, folder: Path, tmp_path: Path) -> None:
        driver = manifest.of_folder(folder)
        bare = tree(tmp_path / "bare", "# block\n")
        assert driver.absent_from(bare) == ["CONFIG_MY_DISK"]
        assert driver.unbuildable(bare, "") == "Linux 7.3.4 has no CONFIG_MY_DISK"
        assert driver.absent_from(tree(tmp_path / "patched", "config MY_DISK\n")) == []

    def test_build_requests_the_driver(self, folder: Path, tmp_path: Path) -> None:
        spec = KernelSpec(modules=(folder,))
        patched = tree(tmp_path / "patched", "config MY_DISK\n")
        job = plan.build_spec_in(patched, spec, samples.tools(tmp_path / "tools"))
        assert "my_disk" not in job.omitted
        assert job.merged.requests["MY_DISK"].value == "m"

    def test_kernel_without_the_driver_names_the_symbol(self, folder: Path, tmp_path: Path) -> None:
        reason = manifest.of_folder(folder).missing_from(samples.kernel(tmp_path / "kernel"))
        assert reason == "kernel 7.3 (7.3.4) is built without CONFIG_MY_DISK"

    def test_manifest_without_patches_fragment_or_symbols_is_refused(self, folder: Path) -> None:
        file = folder / "manifest.toml"
        file.write_text(MANIFEST.replace('"patches"', '"gone"'))
        with pytest.raises(UsageError, match="no such patch series"):
            manifest.of_folder(folder)
        file.write_text(MANIFEST.replace('symbols = ["MY_DISK"]\n', ""))
        with pytest.raises(UsageError, match="needs `symbols`"):
            manifest.of_folder(folder)
        file.write_text(MANIFEST)
        (folder / "my_disk.config").unlink()
        with pytest.raises(UsageError, match="my_disk.config"):
            manifest.of_folder(folder)

    def test_manifest_with_a_series_needs_a_folder(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text(MANIFEST)
        with pytest.raises(UsageError, match="in a folder of its own"):
            manifest.read(tmp_path / "mine.toml")
