# SPDX-License-Identifier: GPL-2.0-or-later
"""What is taken for the host's toolchain, from a PATH of scripts."""

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
    """A PATH of one folder below the user's home, with all that GCC builds need."""
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


def test_versions_are_what_the_programs_tell(programs: Path) -> None:
    assert from_host("gcc").versions == {
        "gcc": "gcc (Debian) 12.2.0",
        "ld": "ld (Debian) 12.2.0",
    }


def test_all_that_is_missing_is_told_at_once_with_the_command(programs: Path) -> None:
    for name in ("flex", "ld"):
        (programs / name).unlink()
    no_gelf = "while read -r line; do case $line in *gelf.h*) exit 1;; esac; done"
    put(programs, "gcc", "gcc 12", no_gelf)
    with pytest.raises(Failure) as caught:
        from_host("gcc")
    assert "lacks flex, ld, gelf.h" in str(caught.value)
    assert "apt-get install flex binutils libelf-dev" in str(caught.value)


def test_another_compiler_asks_for_its_own_programs(programs: Path) -> None:
    with pytest.raises(Failure, match="lacks clang, ld.lld, llvm-ar"):
        from_host("llvm")


def test_a_rustc_that_does_not_run_is_none(programs: Path) -> None:
    put(programs, "rustc", "rustc 1.90.0", "exit 1")
    put(programs, "bindgen", "bindgen 0.71.1")
    assert from_host("gcc").versions.keys() == {"gcc", "ld", "bindgen"}


def test_rust_comes_from_its_toolchain_and_not_from_a_launcher(programs: Path) -> None:
    sysroot = programs.parent / ".rustup" / "toolchains" / "stable"
    (sysroot / "bin").mkdir(parents=True)
    put(programs, "rustc", "rustc 1.90.0", f"[ $1 != --print ] || {{ echo {sysroot}; exit; }}")
    found = from_host("gcc")
    assert found.path[0] == sysroot / "bin"
    assert sysroot in found.shown
    assert found.versions["rustc"] == "rustc 1.90.0"


def test_a_home_is_hidden_but_for_the_programs(programs: Path) -> None:
    found = from_host("gcc")
    assert Path.home() in found.hidden
    assert found.shown == (programs,)
    argv = found.sandbox({}).argv(["true"])
    words = " ".join(argv)
    assert f"--tmpfs {Path.home()}" in words
    assert words.index(f"--tmpfs {Path.home()}") < words.index(f"--ro-bind {programs} {programs}")
    assert f"PATH {programs}:/usr/local/sbin" in words
    assert "--unshare-net" in argv


def test_the_order_of_path_is_kept(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the system's gcc would be in front of the user's own."""
    system = tmp_path / "system"
    system.mkdir()
    for name in ("make", "gcc"):
        put(system, name, f"{name} 4")
    (programs / "make").unlink()
    monkeypatch.setenv("PATH", f"{programs}:{system}")
    found = from_host("gcc")
    assert found.path == (programs, system)
    assert found.versions["gcc"] == "gcc (Debian) 12.2.0"


def test_sockets_and_other_homes_are_hidden() -> None:
    assert {Path("/home"), Path("/run")} <= set(path_toolchain._hidden())


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A tree that wants gcc 8.1.0 and binutils 2.30.0."""
    folder = tmp_path / "linux"
    (folder / "scripts").mkdir(parents=True)
    (folder / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
    script = 'case "$1" in\ngcc)\n\techo 8.1.0\n\t;;\nbinutils)\n\techo 2.30.0\n\t;;\nesac\n'
    (folder / "scripts/min-tool-version.sh").write_text(script)
    return Tree(folder, Other("directory x"))


class TestCheck:
    def test_old_tools_are_told_before_anything_is_built(self, programs: Path, tree: Tree) -> None:
        put(programs, "gcc", "gcc (Debian 7.5.0-1) 7.5.0")
        with pytest.raises(Failure) as caught:
            toolchain.check(tree, from_host("gcc"))
        message = str(caught.value)
        assert "Linux 7.3.4 needs gcc 8.1.0 or newer, the host toolchain has gcc" in message
        assert "(Debian 7.5.0-1) 7.5.0" in message
        assert "--toolchain pinned" in str(caught.value)

    def test_new_enough_ones_pass(self, programs: Path, tree: Tree) -> None:
        put(programs, "ld", "GNU ld (GNU Binutils for Debian) 2.30")
        put(programs, "gcc", "gcc (Debian 8.1.0-1) 8.1.0")
        toolchain.check(tree, from_host("gcc"))
