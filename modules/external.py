# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules outside the kernel tree: from a folder of sources to files that a guest loads.

They are built with the kernel's own programs against its output tree, in a copy of the folder, so
nothing is written to the user's. Sandbox: source, output tree and kernel are read-only, and there
is no network.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kernel.artifact import Kernel
from kernel.host import store, untrusted
from kernel.host.errors import Failed, UserError
from kernel.host.process import run
from kernel.host.progress import step
from kernel.host.sandbox import BIND, Sandbox
from modules.manifest import Manifest

if TYPE_CHECKING:
    from kernel.host.provenance import Provenance

RECIPE = 1  # raise it when the same inputs give other modules
# What builds leave behind; make would take it for its own, made for another kernel.
PRODUCTS = (".cmd", ".ko", ".mod", ".mod.c", ".o", "Module.symvers", "modules.order")


# Gives a kernel's sandbox, and make in it; nobody changes the kernel's output tree meanwhile.
Maker = Callable[[], AbstractContextManager[tuple[Sandbox, list[str]]]]


def build_module(driver: Manifest, kernel: Kernel, maker: Maker) -> Path:
    """The folder that holds the driver's ``.ko`` files for this kernel, from the cache or built.

    Raises Failed with the compiler's last lines and the log's path when it does not compile, and
    UserError for sources that are not to be had or that do not make the modules of the manifest.
    """
    folder = Path(driver.folder)
    files = dict(_sources(folder))
    key = store.digest("module", RECIPE, kernel.info.key, files)

    ran: list[Sandbox] = []

    def make(path: Path) -> None:
        copy = path / "source"
        for name in files:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / name, copy / name)  # a script stays one that can be run
        log = store.directory("logs") / f"module-{driver.name}-{key}.log"
        doing = f"building {driver.name} for kernel {kernel.info.name}"
        ran.append(make_modules(copy, maker, log, doing))
        _collect(driver, copy, path)
        store.remove(copy)

    def made_from() -> Provenance:
        from kernel import statements  # only for what is made now

        return statements.of_module(driver.name, key, RECIPE, files, kernel.path, ran[0])

    return store.get("modules", key, f"module {driver.name}", make, provenance=made_from)


def make_modules(folder: Path, maker: Maker, log: Path, doing: str) -> Sandbox:
    """Runs make on a folder of sources, which it writes to; returns the sandbox that it ran in.

    Raises Failed with the log's path.
    """
    log.unlink(missing_ok=True)
    with maker() as (kernel_sandbox, make_argv):
        sandbox = replace(kernel_sandbox, writable={"module": folder})
        argv = sandbox.argv([*make_argv, f"M={BIND}/module", "modules"])
        with step(doing, log=log):
            run(argv, log=log, doing=doing, limits=sandbox.limits, outputs=[folder])
    return sandbox


def _sources(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and hash of each file below a folder, what builds leave behind left out."""
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.name.endswith(PRODUCTS) or not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        runs = "x" if os.access(path, os.X_OK) else ""
        yield name, hashlib.sha256(data).hexdigest() + runs


def _collect(driver: Manifest, built: Path, path: Path) -> None:
    for name in driver.modules:
        found = [
            file
            for file in built.rglob("*.ko")
            if file.stem.replace("-", "_") == name.replace("-", "_")
        ]
        if not found:
            made = ", ".join(sorted(file.name for file in built.rglob("*.ko"))) or "nothing"
            raise Failed(
                f"{driver.folder} does not make {name}.ko, which its manifest names: it made {made}"
            )
        untrusted.copy(built, str(found[0].relative_to(built)), path / f"{name}.ko")
