# SPDX-License-Identifier: GPL-2.0-or-later
"""The tool root's ccache as builds use it: what it finds again, and what nobody can plant."""

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
    """A source folder; what ccache keeps is kept below the test's own cache."""
    monkeypatch.setattr(ccache, "_folder", lambda name: _made(tmp_path / "ccache" / name))
    (tmp_path / "src").mkdir()
    (tmp_path / "src/x.c").write_text('#include "x.h"\nint x = X;\n')
    (tmp_path / "src/x.h").write_text("#define X 1\n")
    return tmp_path / "src"


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def compiled(tools: ToolRoot, tree: Path, objects: Objects, script: str = CC) -> str:
    """What a build prints that runs `script` in the place of make, and what ccache did."""
    out = _made(tree.parent / "out")
    plain = Sandbox(tools.root, read_only={"src": tree}, writable={"out": out})
    sandbox = objects.sandbox(plain, from_root(tools))
    argv = sandbox.argv(objects.argv(["sh", "-c", script]))
    done = subprocess.run(argv, capture_output=True, text=True)
    statistics = out / ccache.STATISTICS
    if not statistics.exists():
        return done.stdout + done.stderr
    misses = statistics.read_text().splitlines().count("cache_miss")
    return f"{done.stdout}{done.stderr}ccache: {ccache.take_hits(out)} {misses}"


def test_a_build_finds_what_another_compiled_and_sees_a_changed_header(
    tools: ToolRoot, tree: Path
) -> None:
    debian, mine = Objects(DEBIAN), Objects("mine", (DEBIAN,))
    assert "ccache: 0 1" in compiled(tools, tree, debian)
    assert "ccache: 1 0" in compiled(tools, tree, mine)
    (tree / "x.h").write_text("#define X 2\n")
    dump = f"{CC} && llvm-objdump -s -j .data /tmp/x.o"
    told = compiled(tools, tree, mine, dump)
    assert "ccache: 0 1" in told
    assert "0000 02000000" in told
    # what `mine` kept is for nobody else
    assert "ccache: 0 1" in compiled(tools, tree, debian)


def test_what_is_shared_is_read_only_to_others(tools: ToolRoot, tree: Path) -> None:
    mine = Objects("mine", (DEBIAN,))
    told = compiled(tools, tree, mine, "touch /mnt/ccache/own/x && touch /mnt/ccache/debian/x")
    assert "/mnt/ccache/debian/x': Read-only file system" in told


def test_an_embedded_file_that_changes_is_seen(tools: ToolRoot, tree: Path) -> None:
    """ccache in depend mode would give the old object."""
    (tree / "x.c").write_text('asm(".data\\n.incbin \\"/mnt/src/blob\\"");\n')
    dump = f"{CC} && llvm-objdump -s -j .data /tmp/x.o"
    for blob, shown in (("aaaa", "61616161"), ("bbbb", "62626262")):
        (tree / "blob").write_text(blob)
        assert shown in compiled(tools, tree, Objects("mine"), dump)


def test_a_tree_whose_headers_embed_files_is_compiled_without(tools: ToolRoot, tree: Path) -> None:
    (tree / "x.h").write_text('#define X 1\nasm(".incbin \\"/mnt/src/blob\\"");\n')
    (tree / "blob").write_text("aaaa")
    told = compiled(tools, tree, Objects("mine"))
    assert "no ccache: /mnt/src/x.h embeds files" in told
    assert "ccache: " not in told


def test_a_failing_make_fails(tools: ToolRoot, tree: Path) -> None:
    objects = Objects("mine")
    sandbox = objects.sandbox(Sandbox(tools.root, read_only={"src": tree}), from_root(tools))
    argv = sandbox.argv(objects.argv(["sh", "-c", "exit 7"]))
    assert subprocess.run(argv, capture_output=True).returncode == 7


def test_what_was_not_used_for_longest_goes_when_there_is_too_much(
    tools: ToolRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "directory", lambda kind: _made(tmp_path / kind))
    monkeypatch.setenv("BLOCKYARD_CCACHE_GB", "0.00015")
    settings.cache_clear()
    folder = _made(tmp_path / "ccache" / DEBIAN / "00")
    for age, name in enumerate(("new", "old")):
        (folder / name).write_bytes(bytes(100_000))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    try:
        ccache.trim(tools)
    finally:
        settings.cache_clear()
    assert [path.name for path in folder.iterdir()] == ["new"]
