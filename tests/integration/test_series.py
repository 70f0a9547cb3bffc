# SPDX-License-Identifier: GPL-2.0-or-later
"""Patch series are applied to a source tree with the tool root's GNU patch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.kernel.catalog import Directory
from blockyard.kernel.host import seal, store
from blockyard.kernel.host.debian import ToolRoot, tool_root
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.kernel.sources import directory, series
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree

MAKEFILE = "VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n"
LINES = "".join(f"line {number}\n" for number in range(1, 21))

CHANGE = """\
diff --git a/block/x.c b/block/x.c
--- a/block/x.c
+++ b/block/x.c
@@ -2,3 +2,3 @@
 line 2
-line 3
+line three
 line 4
@@ -17,3 +17,4 @@
 line 17
-line 18
+line eighteen
+line eighteen and a half
 line 19
"""
ADD = """\
diff --git a/block/new.c b/block/new.c
new file mode 100644
--- /dev/null
+++ b/block/new.c
@@ -0,0 +1 @@
+new
"""
REMOVE = """\
diff --git a/block/old.c b/block/old.c
deleted file mode 100644
--- a/block/old.c
+++ /dev/null
@@ -1 +0,0 @@
-old
"""
RENAME = """\
diff --git a/block/old.c b/block/older.c
similarity index 100%
rename from block/old.c
rename to block/older.c
"""
EXECUTABLE = """\
diff --git a/block/old.c b/block/old.c
old mode 100644
new mode 100755
"""
NOWHERE = """\
--- a/block/x.c
+++ b/block/x.c
@@ -500,0 +501 @@
+nowhere
"""
OUTSIDE = """\
--- a/../../outside
+++ b/../../outside
@@ -0,0 +1 @@
+outside
"""
THROUGH_A_LINK = """\
--- a/link/x.c
+++ b/link/x.c
@@ -0,0 +1 @@
+outside
"""
ED_SCRIPT = """\
--- a/block/x.c
+++ b/block/x.c
1d
!touch /mnt/tree/run
.
"""


@pytest.fixture(scope="module")
def tools() -> ToolRoot:
    return tool_root()


@pytest.fixture
def tree(tmp_path: Path, tools: ToolRoot, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    """A small tree that never changes, and an empty cache."""
    monkeypatch.setenv("BLOCKYARD_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    path = tmp_path / "tree"
    (path / "block").mkdir(parents=True)
    (path / "Makefile").write_text(MAKEFILE)
    (path / "Kconfig").write_text("config BLOCK\n")
    (path / "block" / "x.c").write_text(LINES)
    (path / "block" / "old.c").write_text("old\n")
    (path / "block" / "untouched.c").write_text("untouched\n")
    (path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    yield Tree(path, Other("made for a test"))
    settings.cache_clear()


def patched(tree: Tree, tools: ToolRoot, folder: Path, *texts: str) -> Tree:
    folder.mkdir()
    for number, text in enumerate(texts, start=1):
        (folder / f"{number:04}.patch").write_text(text)
    return series.applied(tree, [folder], tools)


def state(path: Path) -> dict[str, tuple[int, bytes]]:
    """The mode and the contents of all files."""
    return {
        str(file.relative_to(path)): (file.stat().st_mode, file.read_bytes())
        for file in path.rglob("*")
        if file.is_file()
    }


def test_series_makes_a_new_tree(tree: Tree, tools: ToolRoot, tmp_path: Path) -> None:
    result = patched(tree, tools, tmp_path / "patches", CHANGE, ADD, RENAME)
    text = (result.path / "block/x.c").read_text()
    assert "line three\n" in text
    assert "line eighteen and a half\n" in text
    assert (result.path / "block/new.c").read_text() == "new\n"
    assert (result.path / "block/older.c").read_text() == "old\n"
    assert not (result.path / "block/old.c").exists()
    assert {path.name for path in result.path.parent.iterdir()} - {seal.SEAL, seal.MANIFEST} == {
        "tree"
    }
    assert result.version == "7.3.4"
    assert str(result.origin).startswith("made for a test with 3 patches ")


def test_patched_copy_does_not_follow_its_directory(
    tree: Tree, tools: ToolRoot, tmp_path: Path
) -> None:
    """Only the directory itself is compared with its state at the beginning."""
    mine = directory.source_tree(Directory(str(tree.path)))
    result = patched(mine, tools, tmp_path / "patches", CHANGE)
    assert result.build_id
    assert not directory.changed(result)
    os.utime(tree.path / "Makefile", ns=(1, 1))
    assert directory.changed(mine)
    assert not directory.changed(result)


@pytest.mark.parametrize(
    "text", [CHANGE, ADD, REMOVE, RENAME, EXECUTABLE], ids=["change", "add", "rm", "mv", "chmod"]
)
def test_original_tree_never_changes(
    tree: Tree, tools: ToolRoot, tmp_path: Path, text: str
) -> None:
    before = state(tree.path)
    result = patched(tree, tools, tmp_path / "patches", text)
    assert state(result.path) != before
    assert state(tree.path) == before


def test_untouched_files_are_hard_links(tree: Tree, tools: ToolRoot, tmp_path: Path) -> None:
    result = patched(tree, tools, tmp_path / "patches", CHANGE)
    for name, shared in (("block/untouched.c", True), ("block/x.c", False)):
        same = (tree.path / name).stat().st_ino == (result.path / name).stat().st_ino
        assert same == shared


def test_tree_of_the_user_is_copied(tree: Tree, tools: ToolRoot, tmp_path: Path) -> None:
    """The user may write to the files of a directory at any time."""
    mine = Tree(tree.path, Other("directory"), build_id=str(tree.path))
    result = patched(mine, tools, tmp_path / "patches", CHANGE)
    (tree.path / "block/untouched.c").write_text("written to\n")
    assert (result.path / "block/untouched.c").read_text() == "untouched\n"
    assert result.build_id not in ("", mine.build_id)


def test_same_patches_give_the_same_tree(tree: Tree, tools: ToolRoot, tmp_path: Path) -> None:
    first = patched(tree, tools, tmp_path / "one", CHANGE)
    assert patched(tree, tools, tmp_path / "two", CHANGE) == first
    assert patched(tree, tools, tmp_path / "three", CHANGE, ADD).path != first.path


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CHANGE.replace("line 18", "line 80"), "block/x.c: hunk 2 does not fit at line 17"),
        (CHANGE.replace("block/x.c", "block/gone.c"), "block/gone.c: no such file"),
        (ADD.replace("new.c", "old.c"), "block/old.c: the file already exists"),
        (RENAME.replace("older.c", "new.c"), "block/new.c: the file already exists"),
        (EXECUTABLE.replace("old.c", "gone.c"), "block/gone.c: no such file"),
        (
            REMOVE.replace("old.c", "x.c").replace("-old", "-line 1"),
            "block/x.c: its lines differ from those to remove",
        ),
        (ADD.replace("block/new.c", ".git/x"), ".git/x: git does not allow this name"),
        (NOWHERE, "block/x.c: hunk 1 (line 500) has neither context nor a removed line"),
    ],
    ids=["hunk", "no-file", "file-is-there", "mv", "chmod", "rm", "git", "no-context"],
)
def test_failure_says_why_a_patch_does_not_apply(
    tree: Tree, tools: ToolRoot, tmp_path: Path, text: str, reason: str
) -> None:
    before = state(tree.path)
    with pytest.raises(Failure) as caught:
        patched(tree, tools, tmp_path / "patches", ADD, text)
    message = str(caught.value)
    assert message.startswith("0002.patch (patch 2 of 2) does not apply to Linux 7.3.4:")
    assert reason in message
    assert "already in" not in message
    assert state(tree.path) == before
    assert not list(store.directory("sources").iterdir())


def test_patches_that_the_tree_has_already_are_listed(
    tree: Tree, tools: ToolRoot, tmp_path: Path
) -> None:
    both = patched(tree, tools, tmp_path / "both", CHANGE, ADD)
    rename = RENAME.replace("old.c", "untouched.c")
    with pytest.raises(Failure) as caught:
        patched(both, tools, tmp_path / "again", rename, CHANGE, ADD)
    message = str(caught.value)
    assert "0002.patch (patch 2 of 3) does not apply to Linux 7.3.4:" in message
    assert "block/x.c: the change is already applied" in message
    assert "already in Linux 7.3.4: patch 2 (0002.patch), 3 (0003.patch)" in message
    assert "list the others in a file `series`" in message


@pytest.mark.parametrize("name", ["x.c", "gone.c"])
def test_failing_removal_is_not_taken_for_already_applied(
    tree: Tree, tools: ToolRoot, tmp_path: Path, name: str
) -> None:
    text = f"diff --git a/block/{name} b/block/{name}\ndeleted file mode 100644\n"
    with pytest.raises(Failure) as caught:
        patched(tree, tools, tmp_path / "patches", text)
    assert f"block/{name}" in str(caught.value)
    assert "already in" not in str(caught.value)


def test_patch_can_reuse_a_name_that_an_earlier_one_removed(
    tree: Tree, tools: ToolRoot, tmp_path: Path
) -> None:
    onto = RENAME.replace("old.c", "x.c").replace("older.c", "old.c")
    result = patched(tree, tools, tmp_path / "patches", REMOVE, onto)
    assert (result.path / "block/old.c").read_text() == LINES


def test_hunk_that_fits_at_another_line_is_noted(
    tree: Tree, tools: ToolRoot, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    patched(tree, tools, tmp_path / "patches", CHANGE.replace("@@ -2,3 +2,3", "@@ -8,3 +8,3"))
    assert "0001.patch: hunk 1 of block/x.c fits 6 lines further up" in capfd.readouterr().err


def test_file_names_need_no_prefix(tree: Tree, tools: ToolRoot, tmp_path: Path) -> None:
    bare = CHANGE.replace("a/block", "block").replace("b/block", "block")
    assert patched(tree, tools, tmp_path / "bare", bare) == patched(
        tree, tools, tmp_path / "usual", CHANGE
    )


@pytest.mark.parametrize(
    "text", [OUTSIDE, THROUGH_A_LINK, ED_SCRIPT], ids=["dots", "link", "editor"]
)
def test_hostile_patch_changes_no_other_file(
    tree: Tree, tools: ToolRoot, tmp_path: Path, text: str
) -> None:
    before = {*tmp_path.iterdir(), tmp_path / "patches", tmp_path / "cache"}
    with pytest.raises((Failure, UsageError)):  # by Blockyard or by GNU patch
        patched(tree, tools, tmp_path / "patches", text)
    assert set(tmp_path.iterdir()) <= before
    assert not list((tmp_path / "elsewhere").iterdir())
    assert not (PROJECT / "outside").exists()
    assert not os.path.lexists(tree.path / "run")
