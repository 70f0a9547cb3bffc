# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules of the initramfs and their order."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.images.files import BOOT_MODULES, boot_modules
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host.errors import Failure
from blockyard.tests.unit import samples

# modules.dep as depmod writes it: the deepest dependency last
DEBIAN = {
    "kernel/drivers/virtio/virtio.ko.xz": "",
    "kernel/drivers/virtio/virtio_ring.ko.xz": "kernel/drivers/virtio/virtio.ko.xz",
    "kernel/drivers/virtio/virtio_pci.ko.xz": "kernel/drivers/virtio/virtio_ring.ko.xz "
    "kernel/drivers/virtio/virtio.ko.xz",
    "kernel/drivers/block/virtio_blk.ko.xz": "kernel/drivers/virtio/virtio_ring.ko.xz "
    "kernel/drivers/virtio/virtio.ko.xz",
    "kernel/fs/erofs/erofs.ko.xz": "kernel/lib/netfs.ko.xz",
    "kernel/lib/netfs.ko.xz": "",
    "kernel/drivers/block/null_blk/null_blk.ko.xz": "",
}


def names(modules: list[Path]) -> list[str]:
    return [module.name.partition(".")[0] for module in modules]


def test_modules_come_after_their_dependencies(tmp_path: Path) -> None:
    kernel = samples.kernel(tmp_path, modules=DEBIAN)
    modules = boot_modules(kernel, ["virtio_pci", "virtio_blk", "erofs"])
    assert names(modules) == [
        "virtio",
        "virtio_ring",
        "virtio_pci",
        "virtio_blk",
        "netfs",
        "erofs",
    ]


def test_paths_are_in_the_module_folder_of_the_kernel(tmp_path: Path) -> None:
    kernel = samples.kernel(tmp_path, modules=DEBIAN)
    (netfs,) = boot_modules(kernel, ["netfs"])
    assert netfs == kernel.modules / "kernel/lib/netfs.ko.xz"


def test_each_module_is_listed_once(tmp_path: Path) -> None:
    modules = boot_modules(samples.kernel(tmp_path, modules=DEBIAN), ["virtio_blk", "virtio_ring"])
    assert names(modules) == ["virtio", "virtio_ring", "virtio_blk"]


def test_built_in_drivers_need_no_module(tmp_path: Path) -> None:
    kernel = samples.kernel(tmp_path, modules={"kernel/drivers/block/null_blk/null_blk.ko": ""})
    assert boot_modules(kernel, BOOT_MODULES) == []


def test_hyphens_and_underscores_are_the_same(tmp_path: Path) -> None:
    """Module names have underscores, file names may have hyphens (a rule of kmod)."""
    kernel = samples.kernel(tmp_path, modules={"kernel/drivers/virtio/virtio-pci.ko": ""})
    assert names(boot_modules(kernel, ["virtio_pci"])) == ["virtio-pci"]


def test_missing_modules_dep_is_an_error(tmp_path: Path) -> None:
    kernel: Kernel = samples.kernel(tmp_path)
    with pytest.raises(Failure, match=r"no modules\.dep"):
        boot_modules(kernel, BOOT_MODULES)
