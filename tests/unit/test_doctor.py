# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of a machine: what is missing, and how to get it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from blockyard.ci.commands import doctor
from blockyard.ci.commands.doctor import (
    Check,
    kernel_needs,
    memory,
    space,
    too_old,
    tool_programs,
    version_of,
)
from blockyard.kernel.host import gc
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree
from blockyard.tests.unit import samples

MEMINFO = "MemTotal: 32000000 kB\nMemAvailable: {} kB\n"
PROGRAMS = {"clang": "19.1.7", "gcc": "14.2.0", "rustc": "1.85.1", "bindgen": "0.71.1"}


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing but the test's own programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


class TestPrograms:
    @pytest.mark.parametrize(
        ("script", "version"),
        [
            ("echo 'git version 2.39.5'", "2.39.5"),
            ("echo 'gcc (Debian 12.2.0-14) 12.2.0'", "12.2.0"),
            ("echo none", "of unknown version"),
            ("exit 1", "of unknown version"),
        ],
    )
    def test_its_version_is_asked(self, path: Path, script: str, version: str) -> None:
        program(path, "tool", script)
        assert version_of("tool") == version

    @pytest.mark.usefixtures("path")
    def test_one_that_is_not_installed(self) -> None:
        assert version_of("tool") == ""

    def test_a_file_that_does_not_run(self, path: Path) -> None:
        (path / "tool").write_bytes(b"\x7fELF nonsense")
        (path / "tool").chmod(0o755)
        assert version_of("tool") == "does not run"
        (path / "git").write_bytes(b"\x7fELF nonsense")
        (path / "git").chmod(0o755)
        git = {one.name: one for one in doctor.host_programs()}["git"]
        assert (git.state, git.found) == ("note", "does not run")
        assert git.fix.endswith("apt-get install --reinstall git")

    @pytest.mark.usefixtures("path")
    def test_what_is_missing_has_the_command_that_installs_it(self) -> None:
        found = {one.name: one for one in doctor.host_programs()}
        assert (found["bwrap"].state, found["git"].state) == ("missing", "note")
        assert found["bwrap"].fix.endswith("apt-get install bubblewrap")
        assert found["bwrap"].fix.startswith("sudo ") == (os.geteuid() != 0)

    def test_namespaces_that_are_refused(self, path: Path) -> None:
        program(path, "bwrap", "echo 'setting up uid map: Permission denied' >&2; exit 1")
        found = doctor.namespaces()
        assert (found.state, found.found) == ("missing", "setting up uid map: Permission denied")
        assert "Troubleshooting" in found.fix

    def test_namespaces_that_are_made(self, path: Path) -> None:
        program(path, "bwrap", "exit 0")
        assert doctor.namespaces().state == "ok"


class TestToolRoot:
    def test_one_that_is_not_made_yet_is_no_fault(self) -> None:
        (found,) = tool_programs(None)
        assert found.state == "note"
        assert "./inv build" in found.fix

    def test_one_without_a_program(self, tmp_path: Path) -> None:
        found = {one.name: one for one in tool_programs(samples.tools(tmp_path / "tools"))}
        assert (found["clang"].state, found["clang"].found) == ("ok", "1.0")
        assert found["qemu-system-x86"].state == "missing"
        assert "toolroot.toml" in found["qemu-system-x86"].fix


class TestKernels:
    def tree(self, folder: Path, **minimum: str) -> Tree:
        (folder / "scripts").mkdir(parents=True)
        (folder / "rust").mkdir()
        (folder / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
        cases = "".join(f"{tool})\n\techo {at}\n\t;;\n" for tool, at in minimum.items())
        (folder / "scripts/min-tool-version.sh").write_text(f'case "$1" in\n{cases}esac\n')
        return Tree(folder, Other("a tree"))

    def test_tools_that_are_new_enough(self) -> None:
        assert too_old({"llvm": "19.1.0", "rustc": "1.85.0"}, PROGRAMS) == {}

    def test_tools_that_are_older_or_missing(self) -> None:
        found = too_old({"llvm": "20.0.0", "rustc": "1.90.0", "binutils": "2.30"}, PROGRAMS)
        assert found == {"llvm": "19.1.7", "rustc": "1.85.1", "binutils": "not there"}

    def test_an_epoch_is_no_part_of_a_version(self, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "tools", {"clang-19": "1:19.1.7-3"})
        assert doctor.root_versions(tools)["clang"] == "19.1.7-3"
        tree = self.tree(tmp_path / "tree", llvm="17.0.1")
        assert kernel_needs("7.3", tree, tools).state == "ok"

    def test_one_compiler_is_enough_and_two_too_old_ones_are_not(self, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "tools", {"gcc-14": "14.2.0"})
        needs_clang = self.tree(tmp_path / "one", llvm="99.0.0", gcc="8.1.0")
        needs_both = self.tree(tmp_path / "both", llvm="99.0.0", gcc="99.1.0")
        assert kernel_needs("one", needs_clang, tools).state == "note"
        found = kernel_needs("both", needs_both, tools)
        assert (found.state, found.needed) == ("missing", "llvm 99.0.0, gcc 99.1.0")
        assert "--toolchain host" in found.fix

    def test_rust_that_is_too_old_is_no_fault(self, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "tools")
        found = kernel_needs("7.3", self.tree(tmp_path / "tree", rustc="1.85.0"), tools)
        assert found.state == "note"
        assert (
            found.found == "no Rust: Linux 7.3.4 needs rustc 1.85.0, the pinned toolchain has 1.0"
        )


class TestSpace:
    def test_a_folder_that_is_not_there_yet(self, tmp_path: Path) -> None:
        assert space("cache", tmp_path / "a" / "b", 0.0).state == "ok"

    def test_a_disk_that_is_too_small(self, tmp_path: Path) -> None:
        found = space("cache", tmp_path, 1e9)
        assert found.state == "missing"
        assert "BLOCKYARD_CACHE" in found.fix

    @pytest.mark.parametrize(
        ("gib", "state"), [(0.5, "missing"), (1.5, "note"), (8, "ok")], ids=str
    )
    def test_memory(self, gib: float, state: str) -> None:
        found = memory(MEMINFO.format(int(gib * 1024 * 1024)))
        assert found.state == state

    def test_what_is_cached_needs_no_space_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = gc.Entry("roots", "k", Path("/"), 0.0, int(4 * gc.GB))
        needed = []
        for entries in ([], [entry], [entry, entry]):
            monkeypatch.setattr(gc, "entries", lambda entries=entries: entries)
            needed.append(next(iter(doctor._space())).needed)
        assert needed == ["6.0 GB", "2.0 GB", "1.0 GB"]


class TestVerdict:
    @pytest.mark.parametrize(
        ("states", "ok"),
        [(("ok", "note"), True), (("ok", "missing", "ok"), False)],
        ids=["notes", "missing"],
    )
    def test_only_what_is_missing_fails(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        states: tuple[doctor.State, ...],
        ok: bool,
    ) -> None:
        checks = [
            Check(group="g", name=f"thing {state}", found="x", state=state, fix=f"fix {state}")
            for state in states
        ]
        monkeypatch.setattr(doctor, "examine", lambda: checks)
        assert doctor.show(as_json=False) is ok
        assert f"thing {states[1]}: fix {states[1]}" in capsys.readouterr().out
        assert doctor.show(as_json=True) is ok
        assert [one["state"] for one in json.loads(capsys.readouterr().out)] == list(states)


def test_what_is_not_looked_at_is_said() -> None:
    found = {one.name: one for one in doctor.unknown(["7.3"])}
    assert {one.state for one in found.values()} == {"unknown"}
    assert "kernel.update" in found["mirror"].found
    assert "cache.check" in found["cache"].found
    assert "6.12" in found["other kernels"].found
    assert "7.3," not in found["other kernels"].found


def test_no_nested_sandbox_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.ci.run.module_tests.enclosure.obstacle", lambda: "no")
    found = doctor.nesting()
    assert (found.state, found.found) == ("note", "no")
    assert "--trust-tests" in found.fix
