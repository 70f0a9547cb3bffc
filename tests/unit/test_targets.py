# SPDX-License-Identifier: GPL-2.0-or-later
"""File operations of a patch: creation, removal, rename, copy and mode."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.kernel.sources import targets, unified

LINES = "".join(f"line {number}\n" for number in range(1, 21))
EXISTS = "the file already exists"


def git(old: str, new: str, rest: str) -> str:
    return f"diff --git a/block/{old} b/block/{new}\n{rest}"


def moves(old: str, new: str, how: str = "rename") -> str:
    names = f"{how} from block/{old}\n{how} to block/{new}\n"
    return git(old, new, f"similarity index 100%\n{names}")


def makes(name: str, line: str = "+x") -> str:
    hunk = f"--- /dev/null\n+++ b/block/{name}\n@@ -0,0 +1 @@\n{line}\n" if line else ""
    return git(name, name, f"new file mode 100644\n{hunk}")


def removes(name: str, lines: str = "") -> str:
    hunk = f"--- a/block/{name}\n+++ /dev/null\n@@ -1 +0,0 @@\n-{lines}\n" if lines else ""
    return git(name, name, f"deleted file mode 100644\n{hunk}")


def inserts(name: str, header: str = "@@ -500,0 +501 @@", old: str = "") -> str:
    return f"--- a/block/{old or name}\n+++ b/block/{name}\n{header}\n+zzz\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    block = tmp_path / "block"
    (block / "folder").mkdir(parents=True)
    (block / "x.c").write_text(LINES)
    (block / "full.c").write_text("full\n")
    (block / "same.c").write_text("full\n")
    (block / "empty.c").write_text("")
    (block / "link.c").symlink_to("/nowhere")
    (block / "out").symlink_to("/")
    return tmp_path


def objections(tree: Path, text: str) -> list[str]:
    return targets.objections(tree, unified.scan(text.encode()).files)


@pytest.mark.parametrize("name", ["full.c", "empty.c", "link.c", "folder"])
@pytest.mark.parametrize("how", ["rename", "copy", "new"])
def test_existing_file_is_not_overwritten(tree: Path, name: str, how: str) -> None:
    text = makes(name) if how == "new" else moves("x.c", name, how)
    assert objections(tree, text) == [f"block/{name}: {EXISTS}"]


@pytest.mark.parametrize(
    "text",
    [
        moves("x.c", "y.c"),
        moves("full.c", "away.c") + moves("x.c", "full.c"),
        moves("x.c", "full.c") + moves("full.c", "x.c"),
        removes("full.c", "full") + moves("x.c", "full.c"),
        removes("full.c", "full") + makes("full.c"),
    ],
    ids=["free", "moved", "swapped", "removed", "made-anew"],
)
def test_name_freed_by_the_patch_can_be_used(tree: Path, text: str) -> None:
    assert objections(tree, text) == []


def test_name_can_be_used_once(tree: Path) -> None:
    text = moves("x.c", "y.c", "copy") + moves("full.c", "y.c")
    assert objections(tree, text) == [f"block/y.c: {EXISTS}"]


@pytest.mark.parametrize("how", ["rename", "copy"])
def test_source_of_a_rename_must_exist(tree: Path, how: str) -> None:
    text = moves("none.c", "y.c", how)
    assert objections(tree, text) == ["block/none.c: no such file"]


@pytest.mark.parametrize("header", ["@@ -500,0 +501 @@", "@@ -0,0 +1 @@"])
def test_inserted_lines_need_context(tree: Path, header: str) -> None:
    for text in (inserts("x.c", header), inserts("x.c", header, "x.c.orig")):
        (objection,) = objections(tree, text)
        assert objection.startswith("block/x.c: hunk 1 (line ")
        assert targets.NO_CONTEXT in objection


@pytest.mark.parametrize(
    "text",
    [
        inserts("empty.c", "@@ -0,0 +1 @@"),
        inserts("new.c", "@@ -0,0 +1 @@"),
        makes("new.c"),
        makes("new.c", "") + inserts("new.c", "@@ -0,0 +1 @@"),
        inserts("x.c", "@@ -3 +3,2 @@").replace("+zzz", " line 3\n+zzz"),
        inserts("x.c", "@@ -3 +3 @@").replace("+zzz", "-line 3\n+zzz"),
    ],
    ids=["empty", "not-there", "new", "new-and-empty", "context", "removed"],
)
def test_lines_with_context_or_an_empty_file_are_accepted(tree: Path, text: str) -> None:
    assert objections(tree, text) == []


@pytest.mark.parametrize("name", ["../.git/x", ".GIT/hooks/x", "sub/.git", ".git/x y"])
def test_git_folder_is_not_changed(tree: Path, name: str) -> None:
    (objection,) = objections(tree, makes(name))
    assert objection.endswith(f"{name}: git does not allow this name")


def test_git_folder_in_an_ambiguous_header_is_refused(tree: Path) -> None:
    (objection,) = objections(tree, "diff --git a/.git/x b/q b/z\nnew file mode 100644\n")
    assert objection.endswith("git does not allow this name")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (removes("x.c"), False),
        (removes("none.c"), False),
        (moves("x.c", "y.c") + moves("y.c", "x.c"), False),
        (moves("none.c", "x.c"), True),
        (moves("full.c", "x.c"), False),
        (moves("full.c", "x.c", "copy"), False),
        (moves("full.c", "same.c", "copy"), True),
        (moves("none.c", "same.c", "copy"), False),
        (makes("empty.c", ""), True),
        (makes("x.c", ""), False),
        (makes("link.c", ""), False),
        (git("x.c", "x.c", "old mode 100755\nnew mode 100644\n"), True),
        (git("x.c", "x.c", "old mode 100644\nnew mode 100755\n"), False),
        (git("none.c", "none.c", "old mode 100644\nnew mode 100755\n"), False),
        (inserts("x.c", "@@ -3 +2,0 @@").replace("+zzz", "-line 30"), False),
    ],
)
def test_tree_shows_that_a_patch_is_applied(tree: Path, text: str, expected: bool) -> None:
    assert targets.shows(tree, unified.scan(text.encode()).files) is expected


def test_paths_outside_the_tree_are_not_read(tree: Path) -> None:
    for name in ("out/etc/passwd", "../../etc/passwd", "x\0y", "n" * 5000):
        assert objections(tree, makes(name)) == []
