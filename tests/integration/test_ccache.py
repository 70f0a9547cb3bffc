# SPDX-License-Identifier: GPL-2.0-or-later
"""The tool root's ccache as builds use it: hits and misses, and folders that are read-only."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.build import ccache
from blockyard.kernel.build.ccache import DEBIAN, Objects
from blockyard.kernel.build.toolchain import from_root
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot, tool_root
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.host.settings import settings

CC = "clang -Wp,-MMD,/tmp/x.d -nostdinc -I/mnt/src -c -o /tmp/x.o /mnt/src/x.c"


@pytest.fixture
def tools() -> ToolRoot:
    return tool_root()


@pytest.fixture
def tree(tools: ToolRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source folder; ccache's folders are in the test's folder."""
    monkeypatch.setattr(ccache, "_folder", lambda name: _create(tmp_path / "ccache" / name))
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.c").write_text('#include "x.h"\nint x = X;\n')
    (tmp_path / "src/x.h").write_text("#define X 1\n")
    return tmp_path / "src"


def _create(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def compiled(tools: ToolRoot, tree: Path, objects: Objects, script: str = CC) -> str:
    """The output of a build that runs `script` instead of make, and ccache's hits and misses."""
    out = _create(tree.parent / "out")
    plain = Sandbox(tools.root, read_only={"src": tree}, writable={"out": out})
    sandbox = objects.sandbox(plain, from_root(tools))
    argv = sandbox.argv(objects.argv(["sh", "-c", script]))
    done = subprocess.run(argv, capture_output=True, text=True)
    statistics = out / ccache.STATISTICS
    if not statistics.exists():
        return done.stdout + done.stderr
    misses = statistics.read_text().splitlines().count("cache_miss")
    return f"{done.stdout}{done.stderr}ccache: {ccache.take_hits(out)} {misses}"


def test_build_reuses_objects_of_another_and_sees_a_changed_header(
    tools: ToolRoot, tree: Path
) -> None:
    debian, mine = Objects(DEBIAN), Objects("mine", (DEBIAN,))
    assert "ccache: 0 1" in compiled(tools, tree, debian)
    assert "ccache: 1 0" in compiled(tools, tree, mine)
    (tree / "x.h").write_text("#define X 2\n")
    dump = f"{CC} && llvm-objdump -s -j .data /tmp/x.o"
    output = compiled(tools, tree, mine, dump)
    assert "ccache: 0 1" in output
    assert "0000 02000000" in output
    # other builds do not read the folder `mine`
    assert "ccache: 0 1" in compiled(tools, tree, debian)


def test_shared_folder_is_read_only_for_other_builds(tools: ToolRoot, tree: Path) -> None:
    mine = Objects("mine", (DEBIAN,))
    output = compiled(tools, tree, mine, "touch /mnt/ccache/own/x && touch /mnt/ccache/debian/x")
    assert "/mnt/ccache/debian/x': Read-only file system" in output


def test_changed_embedded_file_is_noticed(tools: ToolRoot, tree: Path) -> None:
    """ccache in depend mode would return the old object."""
    (tree / "x.c").write_text('asm(".data\\n.incbin \\"/mnt/src/blob\\"");\n')
    dump = f"{CC} && llvm-objdump -s -j .data /tmp/x.o"
    for blob, shown in (("aaaa", "61616161"), ("bbbb", "62626262")):
        (tree / "blob").write_text(blob)
        assert shown in compiled(tools, tree, Objects("mine"), dump)


def test_tree_whose_headers_embed_files_is_compiled_without_ccache(
    tools: ToolRoot, tree: Path
) -> None:
    (tree / "x.h").write_text('#define X 1\nasm(".incbin \\"/mnt/src/blob\\"");\n')
    (tree / "blob").write_text("aaaa")
    output = compiled(tools, tree, Objects("mine"))
    assert "no ccache, since /mnt/src/x.h embeds files" in output
    assert "ccache: " not in output


def test_exit_code_of_make_is_returned(tools: ToolRoot, tree: Path) -> None:
    objects = Objects("mine")
    sandbox = objects.sandbox(Sandbox(tools.root, read_only={"src": tree}), from_root(tools))
    argv = sandbox.argv(objects.argv(["sh", "-c", "exit 7"]))
    assert subprocess.run(argv, capture_output=True).returncode == 7


def test_trim_removes_the_least_recently_used_objects(
    tools: ToolRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "directory", lambda kind: _create(tmp_path / kind))
    monkeypatch.setenv("BLOCKYARD_CCACHE_GB", "0.00015")
    settings.cache_clear()
    folder = _create(tmp_path / "ccache" / DEBIAN / "00")
    for age, name in enumerate(("new", "old")):
        (folder / name).write_bytes(bytes(100_000))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    try:
        ccache.trim(tools)
    finally:
        settings.cache_clear()
    assert [path.name for path in folder.iterdir()] == ["new"]
