# SPDX-License-Identifier: GPL-2.0-or-later
"""Rebuilds one driver of a kernel tree with patches, without rebuilding the kernel.

The driver's folder is copied out of the tree, patched, and built like a module outside the tree,
against the output tree of its kernel. That takes seconds.
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
from blockyard.modules.external import MakeOptions, ModuleBuildEnv, make_modules
from blockyard.modules.manifest import Manifest

RECIPE = 1  # increase it when the same inputs give different modules


def rebuilt(
    driver: Manifest,
    kernel: Kernel,
    tree: Tree,
    patches: Sequence[Patch],
    tools: ToolRoot,
    build_env: ModuleBuildEnv,
) -> Path:
    """The cache entry with the driver's ``.ko`` files; built if it is missing.

    It has all modules of the driver's folder, such as nvme-core besides nvme. Raises Failure when
    the kernel has no module of the driver, when a patch does not apply (with the hunk), and when
    the driver does not compile (with the compiler's errors).
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
            if not entry.link:  # drivers in Linux need no links
                untrusted.copy(tree.path, entry.name, whole / entry.name)
                (whole / entry.name).chmod(0o755 if entry.executable else 0o644)
        series.apply(tree, patches, path, tools)
        log = store.directory("logs") / f"module-{driver.name}-{key}.log"
        paths = {f"{BIND}/module/": f"{folder}/", f"{BIND}/src/": ""}
        doing = f"building {what} for kernel {kernel.info.name}"
        make_modules(copy, build_env, log, doing, MakeOptions(names=paths))
        for name in names:
            if not untrusted.is_file(copy, name):
                raise Failure(f"{what} does not build {name}, which kernel {kernel.info.name} has")
            untrusted.copy(copy, name, path / name)
        store.remove(path / "tree")

    return store.get("modules", key, f"module {what}", make)


def source_folder(driver: Manifest, kernel: Kernel) -> Path:
    """The driver's folder relative to the tree; modules are installed below the same path.

    Raises Failure when the kernel does not have the driver as a module.
    """
    name = f"{driver.modules[-1]}.ko"
    for path in sorted((kernel.modules / "kernel").rglob("*.ko")):
        if path.name.replace("-", "_") == name.replace("-", "_"):
            return path.parent.relative_to(kernel.modules / "kernel")
    raise Failure(
        driver.missing_from(kernel) or f"kernel {kernel.info.name} has no module {name}",
        hint="choose a kernel that has the driver as a module",
    )
