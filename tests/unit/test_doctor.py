# SPDX-License-Identifier: GPL-2.0-or-later
"""./inv doctor: what a machine lacks, and how to install it."""

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
    """A PATH with only the programs of the test."""
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
            ("echo none", "unknown version"),
            ("exit 1", "unknown version"),
        ],
    )
    def test_version_is_read_from_the_output(self, path: Path, script: str, version: str) -> None:
        program(path, "tool", script)
        assert version_of("tool") == version

    @pytest.mark.usefixtures("path")
    def test_missing_program_has_no_version(self) -> None:
        assert version_of("tool") == ""

    def test_program_that_does_not_run(self, path: Path) -> None:
        (path / "tool").write_bytes(b"\x7fELF nonsense")
        (path / "tool").chmod(0o755)
        assert version_of("tool") == "does not run"
        (path / "git").write_bytes(b"\x7fELF nonsense")
        (path / "git").chmod(0o755)
        git = {check.name: check for check in doctor.host_programs()}["git"]
        assert (git.state, git.found) == ("note", "does not run")
        assert git.fix.endswith("apt-get install --reinstall git")

    @pytest.mark.usefixtures("path")
    def test_missing_program_has_the_command_to_install_it(self) -> None:
        checks = {check.name: check for check in doctor.host_programs()}
        assert (checks["bwrap"].state, checks["git"].state) == ("missing", "note")
        assert checks["bwrap"].fix.endswith("apt-get install bubblewrap")
        assert checks["bwrap"].fix.startswith("sudo ") == (os.geteuid() != 0)

    def test_refused_namespaces_are_missing(self, path: Path) -> None:
        program(path, "bwrap", "echo 'setting up uid map: Permission denied' >&2; exit 1")
        check = doctor.namespaces()
        assert (check.state, check.found) == ("missing", "setting up uid map: Permission denied")
        assert "Troubleshooting" in check.fix

    def test_working_namespaces_are_ok(self, path: Path) -> None:
        program(path, "bwrap", "exit 0")
        assert doctor.namespaces().state == "ok"


class TestToolRoot:
    def test_tool_root_that_is_not_made_yet_is_a_note(self) -> None:
        (check,) = tool_programs(None)
        assert check.state == "note"
        assert "./inv build" in check.fix

    def test_tool_root_without_a_program(self, tmp_path: Path) -> None:
        checks = {check.name: check for check in tool_programs(samples.tools(tmp_path / "tools"))}
        assert (checks["clang"].state, checks["clang"].found) == ("ok", "1.0")
        assert checks["qemu-system-x86"].state == "missing"
        assert "toolroot.toml" in checks["qemu-system-x86"].fix


class TestKernels:
    def tree(self, folder: Path, **minimum: str) -> Tree:
        (folder / "scripts").mkdir(parents=True)
        (folder / "rust").mkdir()
        (folder / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
        cases = "".join(f"{tool})\n\techo {at}\n\t;;\n" for tool, at in minimum.items())
        (folder / "scripts/min-tool-version.sh").write_text(f'case "$1" in\n{cases}esac\n')
        return Tree(folder, Other("a tree"))

    def test_new_tools_are_accepted(self) -> None:
        assert too_old({"llvm": "19.1.0", "rustc": "1.85.0"}, PROGRAMS) == {}

    def test_old_and_missing_tools_are_listed(self) -> None:
        rejected = too_old({"llvm": "20.0.0", "rustc": "1.90.0", "binutils": "2.30"}, PROGRAMS)
        assert rejected == {"llvm": "19.1.7", "rustc": "1.85.1", "binutils": "not there"}

    def test_epoch_of_a_package_is_ignored(self, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "tools", {"clang-19": "1:19.1.7-3"})
        assert doctor.root_versions(tools)["clang"] == "19.1.7-3"
        tree = self.tree(tmp_path / "tree", llvm="17.0.1")
        assert kernel_needs("7.3", tree, tools).state == "ok"

    def test_one_new_compiler_is_enough(self, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "tools", {"gcc-14": "14.2.0"})
        needs_clang = self.tree(tmp_path / "one", llvm="99.0.0", gcc="8.1.0")
        needs_both = self.tree(tmp_path / "both", llvm="99.0.0", gcc="99.1.0")
        assert kernel_needs("one", needs_clang, tools).state == "note"
        check = kernel_needs("both", needs_both, tools)
        assert (check.state, check.needed) == ("missing", "llvm 99.0.0, gcc 99.1.0")
        assert "--toolchain host" in check.fix

    def test_old_rust_is_a_note(self, tmp_path: Path) -> None:
        tools = samples.tools(tmp_path / "tools")
        check = kernel_needs("7.3", self.tree(tmp_path / "tree", rustc="1.85.0"), tools)
        assert check.state == "note"
        assert (
            check.found == "no Rust: Linux 7.3.4 needs rustc 1.85.0, the pinned toolchain has 1.0"
        )


class TestSpace:
    def test_missing_folder_is_ok(self, tmp_path: Path) -> None:
        assert space("cache", tmp_path / "a" / "b", 0.0).state == "ok"

    def test_small_disk_is_missing_space(self, tmp_path: Path) -> None:
        check = space("cache", tmp_path, 1e9)
        assert check.state == "missing"
        assert "BLOCKYARD_CACHE" in check.fix

    @pytest.mark.parametrize(
        ("gib", "state"), [(0.5, "missing"), (1.5, "note"), (8, "ok")], ids=str
    )
    def test_memory(self, gib: float, state: str) -> None:
        check = memory(MEMINFO.format(int(gib * 1024 * 1024)))
        assert check.state == state

    def test_cached_entries_need_no_space(self, monkeypatch: pytest.MonkeyPatch) -> None:
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
    def test_only_missing_things_fail(
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
        assert [check["state"] for check in json.loads(capsys.readouterr().out)] == list(states)


def test_unexamined_things_are_listed() -> None:
    checks = {check.name: check for check in doctor.unknown(["7.3"])}
    assert {check.state for check in checks.values()} == {"unknown"}
    assert "kernel.update" in checks["mirror"].found
    assert "cache.check" in checks["cache"].found
    assert "6.12" in checks["other kernels"].found
    assert "7.3," not in checks["other kernels"].found


def test_missing_nested_sandbox_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blockyard.ci.run.module_tests.enclosure.obstacle", lambda: "no")
    check = doctor.nesting()
    assert (check.state, check.found) == ("note", "no")
    assert "--trust-tests" in check.fix
