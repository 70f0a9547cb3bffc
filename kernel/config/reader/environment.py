# SPDX-License-Identifier: GPL-2.0-or-later
"""The variables that a tree's Makefile exports to Kconfig, for reading Kconfig without make.

Part of `kernel/config/reader/reader.py`: it runs in the sandbox, with the standard library alone.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Names as in scripts/subarch.include, the top Makefile and scripts/Makefile.clang.
_SUBARCH = {"x86_64": "x86", "aarch64": "arm64"}  # from `uname -m`
_SRCARCH = {"x86_64": "x86", "i386": "x86"}  # from ARCH
_CLANG_TARGET = {"x86": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_CLANG_FLAGS = (
    "-Werror=unknown-warning-option -Werror=ignored-optimization-argument "
    "-Werror=option-ignored -Werror=unused-command-line-argument"
)
_BINUTILS = ("ar", "nm", "objcopy", "objdump", "readelf", "strip")
_PLAIN_TOOLS = ("rustc", "rustdoc", "bindgen", "pahole", "perl", "python3", "bash", "awk")


def kbuild_environment(srctree: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that `make NAME=VALUE… *config` exports to Kconfig.

    `given` holds make's command line (LLVM, ARCH, CROSS_COMPILE, CC, RUSTC, …), which wins over
    the computed values as it does in make.  Rules: the top Makefile and scripts/Makefile.clang
    of 6.1, 6.12 and 7.3; a variable that a version does not use is harmless there.
    """
    cross = given.get("CROSS_COMPILE", "")
    llvm = given.get("LLVM", "")
    prefix = llvm if llvm.endswith("/") else ""
    suffix = llvm if llvm.startswith("-") else ""
    env = {tool.upper(): tool for tool in _PLAIN_TOOLS}
    for tool in _BINUTILS:
        env[tool.upper()] = f"{prefix}llvm-{tool}{suffix}" if llvm else f"{cross}{tool}"
    env["CC"] = f"{prefix}clang{suffix}" if llvm else f"{cross}gcc"
    env["LD"] = f"{prefix}ld.lld{suffix}" if llvm else f"{cross}ld"
    env["HOSTCC"] = f"{prefix}clang{suffix}" if llvm else "gcc"
    env["HOSTCXX"] = f"{prefix}clang++{suffix}" if llvm else "g++"
    env |= {"LLVM_LINK": f"{prefix}llvm-link{suffix}", "HOSTRUSTC": "rustc"}
    env |= {"CROSS_COMPILE": cross, "CONFIG_SHELL": "sh", "RUSTC_BOOTSTRAP": "1"}
    machine = platform.machine()
    env["SUBARCH"] = _SUBARCH.get(machine, machine)
    env["ARCH"] = env["SUBARCH"]
    env |= {"srctree": str(srctree), "objtree": ".", "KCONFIG_CONFIG": ".config"}
    env |= {"LC_COLLATE": "C", "LC_NUMERIC": "C"}
    env |= given
    env["SRCARCH"] = _SRCARCH.get(env["ARCH"], env["ARCH"])
    env["UTS_MACHINE"] = env["ARCH"]
    env["KERNELVERSION"] = kernel_version((srctree / "Makefile").read_text(encoding="utf-8"))
    env["CC_VERSION_TEXT"] = _first_line([*shlex.split(env["CC"]), "--version"])
    env["RUSTC_VERSION_TEXT"] = _first_line([*shlex.split(env["RUSTC"]), "--version"])
    env["PAHOLE_VERSION"] = _first_line([f"{srctree}/scripts/pahole-version.sh", env["PAHOLE"]])
    if "clang" in env["CC_VERSION_TEXT"]:
        target = _CLANG_TARGET.get(env["SRCARCH"])
        assembler = "-fno-integrated-as" if env.get("LLVM_IAS") == "0" else "-fintegrated-as"
        flags = [f"--target={target}"] if target else []
        env["CLANG_FLAGS"] = " ".join([*flags, assembler, _CLANG_FLAGS])
    return env


def kernel_version(makefile: str) -> str:
    """Return KERNELVERSION as the top Makefile puts it together, such as "7.3.4"."""
    part = dict(re.findall(r"^([A-Z]+) *=[ \t]*(\S*)[ \t]*$", makefile[:1000], re.M))
    numbers = [part.get(name, "") for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL")]
    return ".".join(filter(None, numbers)) + str(part.get("EXTRAVERSION", ""))


def _first_line(argv: list[str]) -> str:
    """Return the first line a tool prints, without '#' as in the Makefile; "" if it fails."""
    env = {**os.environ, "LC_ALL": "C"}
    try:
        out = subprocess.run(argv, capture_output=True, text=True, env=env, check=False).stdout
    except OSError:
        return ""
    return (out.splitlines() or [""])[0].replace("#", "")
