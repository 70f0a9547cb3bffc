# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a `Kernel` from a distribution's packages, without compiling anything."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.kernel import arch, artifact
from blockyard.kernel.artifact import IMAGE, Kernel, KernelInfo
from blockyard.kernel.build import bzimage
from blockyard.kernel.build.depmod import depmod
from blockyard.kernel.build.spec import REPRODUCIBLE
from blockyard.kernel.config import kconfig
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.limits import MODULE_S, build_limits
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.sources.tree import Tree

if TYPE_CHECKING:
    from blockyard.kernel.host.provenance import Provenance

RECIPE = 3
NO_HEADERS = "Debian has no headers for it, which modules outside the tree need"


def prebuilt(name: str, files: Tree, tools: ToolRoot, *, headers: bool) -> Kernel:
    """The kernel in a folder of unpacked packages, from the cache or added to it now.

    headers: whether Debian has its header packages, which modules outside the tree need.
    """
    key = key_of(files, headers=headers)

    def make(path: Path) -> None:
        release, image, config = _parts(name, files.path)
        shutil.copyfile(image, path / IMAGE)
        shutil.copyfile(config, path / "config")
        if kconfig.parse(config.read_text()).get(arch.target().image.unpacked_needs) == "y":
            bzimage.unpack(image, path, tools)
        source = files.path / "usr/lib/modules" / release
        if not source.is_dir():  # before 7.2, Debian's packages use /lib
            source = files.path / "lib/modules" / release
        shutil.copytree(source, path / "modules" / release, symlinks=True)
        depmod(path / "modules", release, tools)
        config_sha256 = hashlib.sha256(config.read_bytes()).hexdigest()
        info = KernelInfo(
            key=key,
            name=name,
            release=release,
            source=files.origin,
            config_sha256=config_sha256,
            toolchain={},
            omitted={} if headers else {"modules": NO_HEADERS},
        )
        artifact.save_info(path, info)

    def made_from() -> Provenance:
        from blockyard.kernel.build import statements  # only needed for a new entry

        return statements.of_prebuilt(name, key, RECIPE, files, tools)

    path = store.get("kernels", key, f"kernel {name}", make, provenance=made_from)
    return artifact.load(path, name)


def module_make(headers: Path, release: str, tools: ToolRoot) -> tuple[Sandbox, list[str]]:
    """The sandbox and the make command, without targets, that build modules of a prebuilt kernel.

    headers: the folder of Debian's header packages. Debian builds with GCC; the tool root's GCC may
    have another version than the one that Debian used.
    """
    common = next(headers.glob("usr/src/linux-headers-*-common")).name
    src = f"{BIND}/headers/usr/src"
    argv = ["make", "-C", f"{src}/{common}", f"O={src}/linux-headers-{release}", "CC=gcc"]
    sandbox = Sandbox(
        tools.root,
        read_only={"headers": headers},
        environment=REPRODUCIBLE,
        supervised=True,
        limits=build_limits().within(MODULE_S),
    )
    return sandbox, argv


def key_of(files: Tree, *, headers: bool) -> str:
    """The cache key of the kernel in a folder of unpacked packages; headers: see `prebuilt`."""
    return store.digest("prebuilt", RECIPE, str(files.origin), headers)


def config_of(name: str, files: Tree) -> dict[str, str]:
    """The configuration of a kernel in a folder of unpacked packages: symbol → value."""
    return kconfig.parse(_parts(name, files.path)[2].read_text())


def _parts(name: str, path: Path) -> tuple[str, Path, Path]:
    """Release, image and config; the files are beside the modules since 7.2, in /boot before."""
    for image in path.glob("usr/lib/modules/*/vmlinuz*"):
        return image.parent.name, image, image.parent / "config"
    for image in path.glob("boot/vmlinuz-*"):
        release = image.name.removeprefix("vmlinuz-")
        return release, image, path / "boot" / f"config-{release}"
    raise Failure(f"kernel {name}: no kernel image in its packages (searched {path})")
