# SPDX-License-Identifier: GPL-2.0-or-later
"""A small tree of Kconfig files, and the Kconfig reader run on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from blockyard.kernel.config.reader.report import Report
from blockyard.kernel.host.settings import PROJECT

KCONFIG = """\
mainmenu "Linux/$(ARCH) $(KERNELVERSION)"

config MODULES
    bool "Loadable modules"
    modules
    default y

source "drivers/Kconfig"
"""

DRIVERS = """\
config RUST_IS_AVAILABLE
    def_bool $(shell,echo n)

config RUST
    bool "Rust support"
    depends on RUST_IS_AVAILABLE

config CONFIGFS_FS
    tristate "configfs"
    help
      The lines of a help text are not statements:
      modules
        transitional

config RNULL
    tristate "Rust null block driver"
    depends on RUST && CONFIGFS_FS

menuconfig MISC
    bool "Miscellaneous"
if MISC
config EROFS
    tristate "EROFS"
    select CRC
    select LZ if CONFIGFS_FS
endif

config CRC
    tristate

config LZ
    tristate

config OLD_NAME
    bool
    transitional # since 7.0

config PHY
    tristate "PHY"

config USBHOST
    tristate "USB host"
    depends on PHY if MISC

config OPTIONAL
    tristate "Optional"
    depends on PHY if PHY

config BOTH
    bool "Both"
    depends on (PHY && MISC) if !(PHY = n || MISC)

choice
    prompt "Model"
config SERVER
    bool "Server"
config DESKTOP
    bool "Desktop"
endchoice

config EITHER
    bool "Either"
    depends on PHY || (MISC && !CONFIGFS_FS)
"""

Run = Callable[..., Report]


def make_tree(src: Path) -> Path:
    """A tree with a few Kconfig files and a Rust compiler that is too old."""
    (src / "drivers").mkdir(parents=True)
    (src / "scripts").mkdir()
    (src / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\nEXTRAVERSION =\n")
    (src / "Kconfig").write_text(KCONFIG)
    (src / "drivers/Kconfig").write_text(DRIVERS)
    (src / "scripts/rust_is_available.sh").write_text(
        "cat >&2 <<E\n***\n*** Rust compiler 'rustc' is too old.\n***   Your version:    1.63.0\n"
        "***   Minimum version: 1.85.0\n***\n***\n*** Please see the documentation\nE\nexit 1\n"
    )
    return src


def reader(tree: Path, tmp_path: Path) -> Run:
    """A function that runs the reader as a script, as in the tool root, and returns its report."""

    def run(*symbols: str, config: str = "", requested: str = "", options: str = "") -> Report:
        (tmp_path / ".config").write_text(config)
        argv = [
            sys.executable,
            "-m",
            "blockyard.kernel.config.reader.reader",
            "--srctree",
            str(tree),
        ]
        argv += [*options.split(), "--config", str(tmp_path / ".config")]
        argv += ["--make-var", "ARCH=x86_64"]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        argv += [f"--fragment-value={pair}" for pair in requested.split()]
        done = subprocess.run(
            [*argv, *symbols],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        report = cast(Report, json.loads(done.stdout))
        assert done.returncode == (1 if report["error"] else 0)
        return report

    return run


def value(report: Report, name: str) -> str:
    return report["symbols"][name]["value"]
