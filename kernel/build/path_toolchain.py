# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's compilers, as found on the user's PATH, as a `Toolchain`.

A build sees the host's file system read-only. Home folders and runtime sockets are hidden, so that
a tree under test cannot read keys or talk to services; only the folders of the programs themselves
stay visible. With rustup, Rust is taken from its toolchain's folder, because rustup's `rustc` is a
launcher that needs the home folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from blockyard.kernel.build.toolchain import Toolchain
from blockyard.kernel.host import commands, host_packages
from blockyard.kernel.host.errors import Failure

ANSWER_S = 20  # time limit for a program to print its version
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
# All programs of a host toolchain: program → Debian package.
PACKAGES = {**_ALWAYS, **_COMPILERS["llvm"], **_COMPILERS["gcc"], **{name: name for name in _RUST}}
_HEADERS = {"stdio.h": "libc6-dev", "gelf.h": "libelf-dev", "openssl/opensslv.h": "libssl-dev"}
# Programs whose versions are part of the kernel's cache key.
_VERSIONED = {"gcc": ("gcc", "ld"), "llvm": ("clang", "ld.lld")}


@cache
def from_host(compiler: str) -> Toolchain:
    """The host's compilers; raises Failure with a list of all that is missing.

    The programs are run once per process to get their versions.
    """
    programs = {**_ALWAYS, **_COMPILERS[compiler]}
    missing = {name: package for name, package in programs.items() if not shutil.which(name)}
    missing |= {name: package for name, package in _HEADERS.items() if not _has_header(name)}
    if missing:
        install = host_packages.install_command(*dict.fromkeys(missing.values()))
        raise Failure(
            f"the host toolchain lacks {', '.join(missing)}",
            hint=f"{install}, or build with --toolchain pinned",
        )
    sysroot = _rust_sysroot()
    versions = {name: version_line(name) for name in (*_VERSIONED[compiler], *_RUST)}
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
    """The first line that `program --version` prints; empty if it fails."""
    try:
        result = ask([program, "--version"])
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = result.stdout.splitlines()
    return lines[0].strip() if result.returncode == 0 and lines else ""


def ask(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of the host with `text` as input; raises OSError or TimeoutExpired."""
    return commands.ask(argv, text=text, timeout_s=ANSWER_S)


def _has_header(name: str) -> bool:
    """Whether the C compiler finds a header; true if there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    argv = [compiler, "-E", "-x", "c", "-"] if compiler else ["true"]
    return ask(argv, f"#include <{name}>\n").returncode == 0


def _rust_sysroot() -> Path | None:
    """The folder with rustc's files; None if rustc is missing or does not work."""
    try:
        result = ask(["rustc", "--print", "sysroot"])
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(result.stdout.strip()) if result.returncode == 0 else None


def _program_path(program: str) -> Path:
    return Path(shutil.which(program) or f"/usr/bin/{program}")


def _path(programs: Iterable[str]) -> tuple[Path, ...]:
    """The folders of these programs, in the order of the user's PATH."""
    folders = {_program_path(program).parent for program in programs}
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
        path = _program_path(program)
        real = path.resolve().parent
        folders |= {path.parent, real, real.parent / "lib"}
    tops = {*_hidden(), Path("/tmp")}
    below = [folder for folder in folders if tops & set(folder.parents) and folder.is_dir()]
    return tuple(sorted(below))
