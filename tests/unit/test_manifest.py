# SPDX-License-Identifier: GPL-2.0-or-later
"""Driver manifests: those in the repository, and the errors for invalid ones."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.images.console.result import Result
from blockyard.kernel.host.errors import UsageError
from blockyard.modules import manifest
from blockyard.modules.disk import error_number
from blockyard.modules.manifest import Configfs, Pci, StaticDisks
from blockyard.tests.unit import samples

GOOD = """\
language = "C"
modules = ["null_blk"]
symbols = ["BLK_DEV_NULL_BLK"]

[disks]
kind = "configfs"
path = "/sys/kernel/config/nullb"
"""


class TestRepositoryManifests:
    def test_all_manifests_load(self) -> None:
        assert set(manifest.names()) >= {"null_blk", "nvme", "rnull"}
        for name in manifest.names():
            assert manifest.load(name).name == name

    def test_older_kernel_selects_its_own_disks(self, tmp_path: Path) -> None:
        rnull, kernel = manifest.load("rnull"), samples.kernel(tmp_path)
        assert rnull.on(kernel) is rnull
        older = replace(kernel, info=samples.info("6.17.2"))
        assert isinstance(rnull.on(older).disks, StaticDisks)
        assert rnull.on(older).older_kernels == ()

    def test_null_blk(self) -> None:
        driver = manifest.load("null_blk")
        assert (driver.language, driver.modules) == ("C", ("null_blk",))
        assert isinstance(driver.disks, Configfs)
        assert driver.disks.parameters == {"nr_devices": "0"}

    def test_nvme(self) -> None:
        disks = manifest.load("nvme").disks
        assert isinstance(disks, Pci)
        assert disks.class_code == "0x010802"

    def test_counterparts_are_mutual(self) -> None:
        for name in manifest.names():
            if counterpart := manifest.load(name).counterpart:
                assert manifest.load(counterpart).counterpart == name
        assert manifest.load("rnull").counterpart == "null_blk"

    def test_unknown_driver_suggests_the_nearest_name(self) -> None:
        with pytest.raises(UsageError, match="unknown driver 'nul_blk'") as caught:
            manifest.load("nul_blk")
        assert "null_blk" in caught.value.hint


class TestInvalidManifests:
    @pytest.mark.parametrize(
        ("old", "new", "words"),
        [
            ('language = "C"', "", "language"),
            ('language = "C"', 'language = "Fortran"', "language"),
            ('language = "C"', "language = 5", "$.language"),
            ('modules = ["null_blk"]', 'modules = "null_blk"', "$.modules"),
            ('modules = ["null_blk"]', "modules = []", "modules"),
            ('modules = ["null_blk"]', 'modules = ["null_blk; reboot"]', "modules"),
            ('modules = ["null_blk"]', 'modules = ["--all"]', "modules"),
            ('symbols = ["BLK_DEV_NULL_BLK"]', "symbols = []", "symbols"),
            ('kind = "configfs"', 'kind = "usb"', "usb"),
            ('kind = "configfs"', "", "kind"),
            ('path = "/sys/kernel/config/nullb"', "", "path"),
            ('language = "C"', 'language = "C"\ncounterprt = "rnull"', "counterprt"),
            ('kind = "configfs"', 'kind = "configfs"\nparamters = {}', "paramters"),
            ("[disks]", "[disks", "line"),
        ],
    )
    def test_error_names_the_file_and_the_field(
        self, tmp_path: Path, old: str, new: str, words: str
    ) -> None:
        assert old in GOOD
        path = tmp_path / "mine.toml"
        path.write_text(GOOD.replace(old, new))
        with pytest.raises(UsageError) as caught:
            manifest.read(path)
        assert caught.value.what.startswith(f"{path}: ")
        assert words in caught.value.what
        assert caught.value.exit_code == 2

    def test_valid_manifest_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text(GOOD)
        assert manifest.read(tmp_path / "mine.toml").name == "mine"

    def test_binary_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="mine.toml"):
            manifest.read(tmp_path / "mine.toml")


class TestKernels:
    @pytest.mark.parametrize(
        ("config", "missing", "built_in"),
        [
            ("CONFIG_BLK_DEV_NVME=m\n", False, False),
            ("CONFIG_BLK_DEV_NVME=y\n", False, True),
            ("# CONFIG_BLK_DEV_NVME is not set\n", True, False),
            ("", True, False),
        ],
    )
    def test_driver_is_module_built_in_or_missing(
        self, tmp_path: Path, config: str, missing: bool, built_in: bool
    ) -> None:
        kernel = samples.kernel(tmp_path, config)
        driver = manifest.load("nvme")
        assert bool(driver.missing_from(kernel)) == missing
        assert driver.built_in(kernel) == built_in

    def test_missing_driver_names_kernel_and_symbol(self, tmp_path: Path) -> None:
        reason = manifest.load("rnull").missing_from(samples.kernel(tmp_path))
        assert reason == "kernel 7.3 (7.3.4) is built without CONFIG_BLK_DEV_RUST_NULL"

    @pytest.mark.parametrize(("release", "kind"), [("6.12.1", StaticDisks), ("7.3.4", Configfs)])
    def test_disks_depend_on_the_release(
        self, tmp_path: Path, release: str, kind: type[object]
    ) -> None:
        kernel = samples.kernel(tmp_path, release=release)
        assert isinstance(manifest.load("rnull").on(kernel).disks, kind)


class TestErrorNumber:
    @pytest.mark.parametrize(
        ("output", "number"),
        [
            ("bash: line 1: printf: write error: Invalid argument\n", errno.EINVAL),
            ("bash: line 1: printf: write error: Device or resource busy\n", errno.EBUSY),
            ("mkdir: cannot create directory \u2018x\u2019: File exists\n", errno.EEXIST),
            ("bash: /sys/x: Permission denied\n", errno.EACCES),
            ("first: Invalid argument\nsecond: No such device\n", errno.ENODEV),
            ("write error: Invalid argument\nmore words\n", errno.EINVAL),
            ("echo: write error: Too many references: cannot splice\n", errno.ETOOMANYREFS),
            ("something else went wrong\n", -1),
            ("", -1),
        ],
    )
    def test_last_message_gives_the_errno(self, output: str, number: int) -> None:
        assert error_number(Result(1, output.encode(), 0.0)) == number

    def test_success_is_errno_zero(self) -> None:
        assert error_number(Result(0, b"warning: Invalid argument\n", 0.0)) == 0
