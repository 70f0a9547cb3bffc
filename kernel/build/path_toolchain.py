# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's own compilers as a `Toolchain`: whatever the user's PATH finds.

A build sees the host's file system read-only. Homes and runtime sockets are hidden from it, but for
the folders that the programs stand in, so that a tree under test reads no keys and talks to no
service. Rust of rustup is taken from its toolchain's folder: its `rustc` is a launcher that wants
a home.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from blockyard.kernel.build.toolchain import Toolchain
from blockyard.kernel.host import commands
from blockyard.kernel.host.errors import Failure

ANSWER_S = 20  # a program that does not tell its version by then is none
HIDDEN = ("/home", "/root", "/run", "/var/tmp")  # besides the user's home and /tmp

# Program → Debian package.
_ALWAYS = {"make": "make", "flex": "flex", "bison": "bison", "bc": "bc", "perl": "perl"}
_COMPILERS = {
    "gcc": {"gcc": "gcc", "ld": "binutils"},
    "llvm": {
        "clang": "clang",
        "ld.lld": "lld",
        "llvm-ar": "llvm",
        "llvm-nm": "llvm",
        "llvm-objcopy": "llvm",
        "llvm-readelf": "llvm",
        "llvm-strip": "llvm",
    },
}
_RUST = ("rustc", "bindgen")
# All that a host toolchain may ask for: program → Debian package.
PACKAGES = {**_ALWAYS, **_COMPILERS["llvm"], **_COMPILERS["gcc"], **{one: one for one in _RUST}}
_HEADERS = {"stdio.h": "libc6-dev", "gelf.h": "libelf-dev", "openssl/opensslv.h": "libssl-dev"}
# What a kernel's bytes depend on.
_TELLING = {"gcc": ("gcc", "ld"), "llvm": ("clang", "ld.lld")}


@cache
def from_host(compiler: str) -> Toolchain:
    """The host's compilers; raises one Failure that names all that is missing.

    The programs are asked for their versions once per process.
    """
    programs = {**_ALWAYS, **_COMPILERS[compiler]}
    missing = {name: package for name, package in programs.items() if not shutil.which(name)}
    missing |= {name: package for name, package in _HEADERS.items() if not _has_header(name)}
    if missing:
        packages = " ".join(dict.fromkeys(missing.values()))
        raise Failure(
            f"the host toolchain lacks {', '.join(missing)}",
            hint=f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install {packages}, "
            "or build with --toolchain pinned",
        )
    sysroot = _rust_sysroot()
    versions = {name: version_line(name) for name in (*_TELLING[compiler], *_RUST)}
    if not sysroot:
        versions["rustc"] = ""
    versions = {name: version for name, version in versions.items() if version}
    used = {*programs, *versions} - {"rustc"}
    return Toolchain(
        "host",
        compiler,
        Path("/"),
        versions,
        path=((sysroot / "bin",) if sysroot else ()) + _path(used),
        hidden=_hidden(),
        shown=_shown(used, sysroot),
    )


def version_line(program: str) -> str:
    """The first line of what a program tells as its version; empty when it does not run."""
    try:
        told = ask([program, "--version"])
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = told.stdout.splitlines()
    return lines[0].strip() if told.returncode == 0 and lines else ""


def ask(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs one of the host's programs; raises OSError or TimeoutExpired when it does not answer."""
    return commands.ask(argv, text=text, timeout_s=ANSWER_S)


def _has_header(name: str) -> bool:
    """Whether a C program finds a header; true when there is no compiler to ask."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    argv = [compiler, "-E", "-x", "c", "-"] if compiler else ["true"]
    return ask(argv, f"#include <{name}>\n").returncode == 0


def _rust_sysroot() -> Path | None:
    """Where rustc's own files are; None without a rustc that works."""
    try:
        told = ask(["rustc", "--print", "sysroot"])
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(told.stdout.strip()) if told.returncode == 0 else None


def _place(program: str) -> Path:
    return Path(shutil.which(program) or f"/usr/bin/{program}")


def _path(programs: Iterable[str]) -> tuple[Path, ...]:
    """The folders of these programs, in the order in which the user's PATH has them."""
    folders = {_place(program).parent for program in programs}
    path = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if entry]
    return tuple(dict.fromkeys(folder for folder in path if folder in folders))


def _hidden() -> tuple[Path, ...]:
    names = {Path(name).resolve() for name in (*HIDDEN, Path.home())} - {Path("/")}
    tops = [path for path in names if path.is_dir() and not names & set(path.parents)]
    return tuple(sorted(tops))


def _shown(programs: Iterable[str], sysroot: Path | None) -> tuple[Path, ...]:
    """The folders below hidden ones (or /tmp) that the programs need."""
    folders = {sysroot} if sysroot else set()
    for program in programs:
        place = _place(program)
        real = place.resolve().parent
        folders |= {place.parent, real, real.parent / "lib"}
    tops = {*_hidden(), Path("/tmp")}
    below = [folder for folder in folders if tops & set(folder.parents) and folder.is_dir()]
    return tuple(sorted(below))
