# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of the kernel's tree, changed by patches and built on its own.

Its folder is copied out of the tree, patched and built like a module from outside, against the
output tree of the kernel that it belongs to. That takes seconds, and the kernel stays the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host import store, untrusted
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.sandbox import BIND
from blockyard.kernel.sources import series
from blockyard.kernel.sources.series import Patch
from blockyard.kernel.sources.tree import Tree
from blockyard.modules.external import How, ModuleBuildEnv, make_modules
from blockyard.modules.manifest import Manifest

RECIPE = 1  # raise it when the same inputs give other modules


def rebuilt(
    driver: Manifest,
    kernel: Kernel,
    tree: Tree,
    patches: Sequence[Patch],
    tools: ToolRoot,
    maker: ModuleBuildEnv,
) -> Path:
    """The folder that holds the driver's ``.ko`` files, from the cache or built.

    They are all modules of the driver's folder, such as nvme-core beside nvme. Raises Failure when
    the kernel has no module of the driver, with the hunk for a patch that does not apply, and with
    the compiler's last lines for one that does not compile.
    """
    folder = source_folder(driver, kernel)
    names = sorted(path.name for path in (kernel.modules / "kernel" / folder).glob("*.ko"))
    key = store.digest(
        "rebuilt", RECIPE, kernel.info.key, str(folder), [patch.text for patch in patches]
    )
    what = " ".join([driver.name, *(f"with {patch.name}" for patch in patches)])

    def make(path: Path) -> None:
        copy = path / "tree" / folder
        whole = path / "tree"
        for entry in untrusted.regular_files(
            tree.path, lambda name: name == ".git", start=str(folder)
        ):
            if not entry.link:  # of a driver's folder in Linux none is
                untrusted.copy(tree.path, entry.name, whole / entry.name)
                (whole / entry.name).chmod(0o755 if entry.executable else 0o644)
        series.apply(tree, patches, path, tools)
        log = store.directory("logs") / f"module-{driver.name}-{key}.log"
        paths = {f"{BIND}/module/": f"{folder}/", f"{BIND}/src/": ""}
        doing = f"building {what} for kernel {kernel.info.name}"
        make_modules(copy, maker, log, doing, How(names=paths))
        for name in names:
            if not untrusted.is_file(copy, name):
                raise Failure(f"{what} does not make {name}, which kernel {kernel.info.name} has")
            untrusted.copy(copy, name, path / name)
        store.remove(path / "tree")

    return store.get("modules", key, f"module {what}", make)


def source_folder(driver: Manifest, kernel: Kernel) -> Path:
    """The driver's folder relative to the kernel's tree: modules stand where their sources do."""
    name = f"{driver.modules[-1]}.ko"
    for path in sorted((kernel.modules / "kernel").rglob("*.ko")):
        if path.name.replace("-", "_") == name.replace("-", "_"):
            return path.parent.relative_to(kernel.modules / "kernel")
    raise Failure(
        driver.missing_from(kernel) or f"kernel {kernel.info.name} has no module {name}",
        hint="choose a kernel that has the driver as a module",
    )
