# SPDX-License-Identifier: GPL-2.0-or-later
"""Detection of the host toolchain, with fake programs in PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.build import path_toolchain, toolchain
from blockyard.kernel.build.path_toolchain import from_host
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree

GCC = ("make", "flex", "bison", "bc", "perl", "gcc", "ld")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set PATH to one folder below HOME that has all programs a GCC build needs."""
    folder = tmp_path / "home" / "bin"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(folder))
    from_host.cache_clear()
    for name in GCC:
        put(folder, name, f"{name} (Debian) 12.2.0")
    return folder


def put(folder: Path, name: str, version: str, more: str = "") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{more}\nwhile read -r line; do :; done\necho '{version}'\n")
    path.chmod(0o755)


def test_versions_come_from_the_programs(programs: Path) -> None:
    assert from_host("gcc").versions == {
        "gcc": "gcc (Debian) 12.2.0",
        "ld": "ld (Debian) 12.2.0",
    }


def test_all_missing_programs_are_named_with_the_install_command(programs: Path) -> None:
    for name in ("flex", "ld"):
        (programs / name).unlink()
    no_gelf = "while read -r line; do case $line in *gelf.h*) exit 1;; esac; done"
    put(programs, "gcc", "gcc 12", no_gelf)
    with pytest.raises(Failure) as caught:
        from_host("gcc")
    assert "lacks flex, ld, gelf.h" in str(caught.value)
    assert "apt-get install flex binutils libelf-dev" in str(caught.value)


def test_llvm_needs_its_own_programs(programs: Path) -> None:
    with pytest.raises(Failure, match="lacks clang, ld.lld, llvm-ar"):
        from_host("llvm")


def test_rustc_that_does_not_run_is_ignored(programs: Path) -> None:
    put(programs, "rustc", "rustc 1.90.0", "exit 1")
    put(programs, "bindgen", "bindgen 0.71.1")
    assert from_host("gcc").versions.keys() == {"gcc", "ld", "bindgen"}


def test_rust_comes_from_the_toolchain_behind_rustup(programs: Path) -> None:
    sysroot = programs.parent / ".rustup" / "toolchains" / "stable"
    (sysroot / "bin").mkdir(parents=True)
    put(programs, "rustc", "rustc 1.90.0", f"[ $1 != --print ] || {{ echo {sysroot}; exit; }}")
    chain = from_host("gcc")
    assert chain.path[0] == sysroot / "bin"
    assert sysroot in chain.shown
    assert chain.versions["rustc"] == "rustc 1.90.0"


def test_home_is_hidden_except_the_programs(programs: Path) -> None:
    chain = from_host("gcc")
    assert Path.home() in chain.hidden
    assert chain.shown == (programs,)
    argv = chain.sandbox({}).argv(["true"])
    line = " ".join(argv)
    assert f"--tmpfs {Path.home()}" in line
    assert line.index(f"--tmpfs {Path.home()}") < line.index(f"--ro-bind {programs} {programs}")
    assert f"PATH {programs}:/usr/local/sbin" in line
    assert "--unshare-net" in argv


def test_order_of_path_is_kept(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the system's gcc would come before the user's."""
    system = tmp_path / "system"
    system.mkdir()
    for name in ("make", "gcc"):
        put(system, name, f"{name} 4")
    (programs / "make").unlink()
    monkeypatch.setenv("PATH", f"{programs}:{system}")
    chain = from_host("gcc")
    assert chain.path == (programs, system)
    assert chain.versions["gcc"] == "gcc (Debian) 12.2.0"


def test_sockets_and_other_homes_are_hidden() -> None:
    assert {Path("/home"), Path("/run")} <= set(path_toolchain._hidden())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree that needs gcc 8.1.0 and binutils 2.30.0."""
    folder = tmp_path / "linux"
    (folder / "scripts").mkdir(parents=True)
    (folder / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
    script = 'case "$1" in\ngcc)\n\techo 8.1.0\n\t;;\nbinutils)\n\techo 2.30.0\n\t;;\nesac\n'
    (folder / "scripts/min-tool-version.sh").write_text(script)
    return Tree(folder, Other("directory x"))


class TestCheck:
    def test_old_tools_are_refused(self, programs: Path, tree: Tree) -> None:
        put(programs, "gcc", "gcc (Debian 7.5.0-1) 7.5.0")
        with pytest.raises(Failure) as caught:
            toolchain.check(tree, from_host("gcc"))
        message = str(caught.value)
        assert "Linux 7.3.4 needs gcc 8.1.0 or newer, the host toolchain has gcc" in message
        assert "(Debian 7.5.0-1) 7.5.0" in message
        assert "--toolchain pinned" in str(caught.value)

    def test_tools_of_the_minimum_version_pass(self, programs: Path, tree: Tree) -> None:
        put(programs, "ld", "GNU ld (GNU Binutils for Debian) 2.30")
        put(programs, "gcc", "gcc (Debian 8.1.0-1) 8.1.0")
        toolchain.check(tree, from_host("gcc"))
