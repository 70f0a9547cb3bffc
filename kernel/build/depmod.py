# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs depmod: modprobe in the guest needs the dependency lists of a kernel's modules."""

from __future__ import annotations

from pathlib import Path

from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.process import run
from blockyard.kernel.host.sandbox import BIND, Sandbox


def depmod(modules: Path, release: str, tools: ToolRoot) -> None:
    """Write modules.dep and depmod's other files into ``modules/<release>``."""
    sandbox = Sandbox(tools.root, writable={"root/lib/modules": modules})
    run(
        sandbox.argv(["depmod", "--basedir", f"{BIND}/root", release]),
        log=store.directory("logs") / f"depmod-{release}.log",
        doing=f"listing the modules of {release}",
    )
