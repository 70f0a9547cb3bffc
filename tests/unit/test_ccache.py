# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernels share C objects, and which compiler calls go to ccache."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.kernel.build import ccache
from blockyard.kernel.build.ccache import DEBIAN, Objects, objects
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.build.toolchain import PINNED, Toolchain
from blockyard.kernel.catalog import DebianSource, Directory, Entry, Git, Tarball
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree

ROOT = Toolchain(PINNED, "llvm", Path("/tools"), {"clang": "1"})
ENTRY = DebianSource("linux-source-7.3", ("trixie",))
TREE = Tree(Path("/src"), Other("debian linux-source-7.3 7.3.4-1~bpo13+1"), pristine=True)


def of(
    entry: Entry, tree: Tree, fragments: Sequence[Path] = (), options: Sequence[str] = ()
) -> Objects:
    shared = objects(entry, tree, ROOT, fragments, options)
    assert shared is not None
    return shared


class TestSharing:
    def test_debian_kernels_share_objects_of_all_variants(self) -> None:
        other = replace(TREE, origin=Other("debian linux-source-6.12 6.12.1-1"))
        assert of(ENTRY, TREE) == of(ENTRY, other, options=["debug"]) == Objects(DEBIAN)

    @pytest.mark.parametrize(
        ("entry", "tree", "fragments"),
        [
            (ENTRY, replace(TREE, pristine=False), ()),
            (ENTRY, TREE, (Path("mine.config"),)),
            (Directory("/linux"), Tree(Path("/linux"), Other("directory /linux 01"), "/linux"), ()),
            (Git("https://example.org/x", "main"), Tree(Path("/x"), Other("git x main 01")), ()),
            (Tarball("/x.tar"), Tree(Path("/x"), Other("tarball /x.tar sha256 01")), ()),
            # a tarball with Debian's origin is still a tarball
            (Tarball("/x.tar"), TREE, ()),
        ],
    )
    def test_other_trees_write_their_own_objects_and_read_debians(
        self, entry: Entry, tree: Tree, fragments: Sequence[Path]
    ) -> None:
        shared = of(entry, tree, fragments)
        assert shared.own != DEBIAN
        assert shared.others == (DEBIAN,)

    def test_states_of_a_directory_or_a_branch_share_objects(self) -> None:
        before, after = (
            Tree(Path("/linux"), Other(f"directory /linux {n}"), "/linux") for n in "12"
        )
        assert of(Directory("/linux"), before) == of(Directory("/linux"), after)
        branch = Git("https://example.org/x", "main")
        before, after = (Tree(Path("/linux"), Other(f"git x main {n}")) for n in "12")
        assert of(branch, before) == of(branch, after)

    def test_different_trees_do_not_share_objects(self) -> None:
        remote = "https://example.org/x"
        trees = [
            of(Directory("/a"), Tree(Path("/a"), Other("directory /a 1"), "/a")),
            of(Directory("/b"), Tree(Path("/b"), Other("directory /b 1"), "/b")),
            of(Git(remote, "main"), Tree(Path("/c"), Other("git x main 1"))),
            of(Git(remote, "other"), Tree(Path("/c"), Other("git x other 1"))),
            of(ENTRY, Tree(TREE.path, Other(f"{TREE.origin} with 1 patches a"))),
            of(ENTRY, Tree(TREE.path, Other(f"{TREE.origin} with 1 patches b"))),
            of(ENTRY, TREE, (Path("a.config"),)),
            of(ENTRY, TREE, (Path("b.config"),)),
        ]
        assert len({tree.own for tree in trees}) == len(trees)

    def test_relative_repository_is_identified_by_its_absolute_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shared = set()
        for name in ("first", "second"):
            (tmp_path / name / "linux").mkdir(parents=True)
            monkeypatch.chdir(tmp_path / name)
            shared.add(of(Git("./linux", "main"), Tree(Path("/c"), Other("git ./linux main 1"))))
        assert len(shared) == 2

    def test_no_objects_with_host_compilers_or_without_ccache(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert objects(ENTRY, TREE, replace(ROOT, origin="host"), (), ()) is None
        monkeypatch.setenv("BLOCKYARD_CCACHE_GB", "0")
        assert objects(ENTRY, TREE, ROOT, (), ()) is None


class TestSandbox:
    def test_objects_of_others_are_read_only(self, cache: Path) -> None:
        sandbox = Objects("mine", (DEBIAN,)).sandbox(Sandbox(Path("/tools")), ROOT)
        command = " ".join(sandbox.argv(["true"]))
        assert f"--bind {cache}/ccache/mine /mnt/ccache/own" in command
        assert f"--ro-bind {cache}/ccache/debian /mnt/ccache/debian" in command

    def test_only_kernel_builds_use_ccache(self, tmp_path: Path) -> None:
        """A module's makefile runs on the same output tree and must not write objects."""
        fragment = Fragment("x", "CONFIG_BLOCK=y\n")
        tools = type("Tools", (), {})()
        job = BuildSpec("7.3", TREE, (fragment,), ROOT, tools, objects=Objects(DEBIAN))
        for sandbox in (job.sandbox(), job.module_make()[0]):
            assert "ccache" not in " ".join(sandbox.argv(["true"]))

    def test_compiler_version_is_part_of_the_check(self) -> None:
        sandboxes = [
            Objects("mine").sandbox(Sandbox(Path("/")), replace(ROOT, versions={"clang": version}))
            for version in "12"
        ]
        assert len({sandbox.environment["CCACHE_COMPILERCHECK"] for sandbox in sandboxes}) == 2


# arguments of a compiler call of kbuild, without the source file
KERNEL = ["-Wp,-MMD,block/.x.o.d", "-nostdinc", "-D__KERNEL__", "-c", "-o", "block/x.o"]


class TestCompiler:
    """scripts/cached-compiler, with echo in place of ccache and of the compiler."""

    @pytest.fixture
    def call(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "ccache").write_text('#!/bin/sh\necho "ccache $1"\n')
        (tmp_path / "ccache").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        monkeypatch.setenv("EMBEDDING", ccache.EMBEDDING)
        link = tmp_path / "echo"  # /usr/bin/echo stands for the compiler
        link.symlink_to(ccache.SCRIPTS / "cached-compiler")
        return link

    def goes_to_ccache(self, call: Path, *arguments: str) -> bool:
        done = subprocess.run([call, *arguments], capture_output=True, text=True, check=True)
        cached = done.stdout == "ccache /usr/bin/echo\n"
        assert cached or done.stdout == f"{' '.join(arguments)}\n"
        return cached

    @pytest.mark.parametrize(
        ("text", "cached"),
        [
            ("int x;\n", True),
            ('asm(".incbin \\"blob\\"");\n', False),
            ("char x[] = {\n#embed <x>\n};\n", False),
        ],
    )
    def test_c_files_of_the_kernel_that_include_only_headers_are_cached(
        self, call: Path, tmp_path: Path, text: str, cached: bool
    ) -> None:
        source = tmp_path / "x.c"
        source.write_text(text)
        assert self.goes_to_ccache(call, *KERNEL, str(source)) is cached

    @pytest.mark.parametrize(
        "arguments",
        [
            [*KERNEL, "/mnt/src/arch/x86/realmode/rmpiggy.S"],
            ["-Werror", "-c", "-x", "c", "/dev/null", "-o", "tmp"],
            ["-Wp,-MMD,scripts/.x.d", "-O2", "-c", "-o", "scripts/x.o", "/etc/hostname.c"],
            ["-print-file-name=plugin"],
        ],
    )
    def test_other_calls_go_to_the_compiler(self, call: Path, arguments: list[str]) -> None:
        assert not self.goes_to_ccache(call, *arguments)


def test_reused_objects_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / ccache.STATISTICS).write_text("direct_cache_hit\ncache_miss\ndirect_cache_hit\n")
    assert [ccache.take_hits(tmp_path), ccache.take_hits(tmp_path)] == [2, 0]


def test_statistics_that_are_not_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / ccache.STATISTICS).symlink_to("/dev/zero")
    assert ccache.take_hits(tmp_path) == 0
