# SPDX-License-Identifier: GPL-2.0-or-later
"""Small examples of the forms that a patch series can have: the patches used, and their effect.

The inputs are in data/series. Each changes a file of twenty lines: patch 1 spells out the number
of of line 3, patch 2 that of line 10, patch 3 that of line 17.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources import series
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.patches import Series
from blockyard.kernel.sources.reader import read
from blockyard.kernel.sources.tree import Tree

DATA = Path(__file__).parent / "data" / "series"
SPELLED = {3: "three", 10: "ten", 17: "seventeen"}
ONE, TWO, ALL = (3,), (3, 10), (3, 10, 17)
REPLY = "a reply; its diff is not part of the series"

# input → the lines that it changes, the omitted parts: (start of the name, reason)
ACCEPTED: dict[str, tuple[tuple[int, ...], list[tuple[str, str]]]] = {
    "cover-interdiff": (ALL, [("[PATCH v2 0/3]", "the cover letter, whose diff is an interdiff")]),
    "reply-alternative.mbox": (TWO, [("Re: [PATCH 1/2]", REPLY)]),
    "reply-that-fits.mbox": (TWO, [("Re: [PATCH 2/2]", REPLY)]),
    "reply-with-attachment.mbox": (TWO, [("Re: [PATCH 2/2]", REPLY)]),
    "answer-without-re.mbox": (TWO, [("[PATCH] disk: spell seventeen, too", REPLY)]),
    "two-versions": (TWO, [("[PATCH 1/2]", "an older version, v1 (2 patches)")]),
    "thread.mbox.gz": (ALL, []),
    "patch-7.3.5.xz": (ALL, []),
    "release.zst": (ALL, []),
    "base64-crlf.mbox": (ALL, []),
    "html-beside-text.mbox": (TWO, [("[PATCH 1/2]", "the HTML beside the text")]),
    "octet-attachment.mbox": (TWO, []),
    "attached-format-patch.mbox": (TWO, []),
    "attached-base64.mbox": (TWO, []),
    "forwarded.mbox": (TWO, []),
    "no-prefix.patch": (ONE, []),
    "mnemonic-prefix.diff": (ONE, []),
    "quilt": (ALL, []),
    "number-first.mbox": (ALL, []),
    "many-tags.mbox": (ALL, []),
    "encoded-subject.mbox": (TWO, []),
    "empty-new-file.patch": (ONE, []),
    "flowed.mbox": (TWO, []),
    "b4-am.mbx": (ALL, []),
    "no-suffix": (ONE, []),
    "log-p.patch": (ALL, []),
    "comma, and space": (ONE, []),
    "indented-example.patch": (ONE, []),
    "interdiff-behind.patch": (ONE, [("[PATCH v2]", "the interdiff after the patch")]),
    "maildir": (TWO, []),
    "numbered": (ALL, []),
}
REFUSED = {
    "missing.mbox": "patch 2 of 3 is missing",
    "respin-of-one.mbox": "patch 1, 3 of 3 of v2 is missing",
    "html-only.mbox": "patch 2 of 2 is missing .*its diff in HTML only",
    "binary.patch": r"GNU patch cannot change the binary b/block/logo\.bin",
    "commits.bundle": "commits.bundle is a git bundle, not a patch series",
    "cut.patch": "line 16: the hunk of line 11 is cut",
    "wrapped.patch": "line 16: the hunk of line 11 is cut",
    "quilt-reversed": "series:1: unsupported option -R",
}


def small_tree(path: Path, lines: tuple[int, ...] = ()) -> Tree:
    """Create a tree in whose file these lines are already spelled out."""
    (path / "block").mkdir(parents=True)
    (path / "block" / "disk.c").write_text(text(lines))
    (path / "Makefile").write_text("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n")
    return Tree(path, Other("small"))


def text(lines: tuple[int, ...]) -> str:
    """Return the file with these lines spelled out."""
    words = {line: SPELLED[line] for line in lines}
    return "".join(f"line {words.get(number, number)}\n" for number in range(1, 21))


def patched(parsed: Series, path: Path) -> str:
    """Apply the series with the host's patch and the options of the product; return the file."""
    tree = small_tree(path)
    for patch in series.in_usual_form(tree, parsed.patches):
        argv = ["patch", "--unified", "--strip=1", "--forward", "--batch", "--fuzz=0", "--quiet"]
        subprocess.run([*argv, f"--directory={path}"], input=patch.text, check=True)
    return (path / "block" / "disk.c").read_text()


def test_every_input_has_a_case() -> None:
    assert {*ACCEPTED, *REFUSED} == {path.name for path in DATA.iterdir()}


@pytest.mark.parametrize("name", ACCEPTED)
def test_only_the_patches_of_the_series_are_used(name: str, tmp_path: Path) -> None:
    lines, omitted = ACCEPTED[name]
    parsed = read(DATA / name)
    assert patched(parsed, tmp_path / "tree") == text(lines)
    assert len(parsed.omitted) == len(omitted)
    for part, (what, why) in zip(parsed.omitted, omitted, strict=True):
        assert (part.what[: len(what)], part.why[: len(why)]) == (what, why)


@pytest.mark.parametrize("name", REFUSED)
def test_incomplete_series_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=REFUSED[name]) as caught:
        read(DATA / name)
    assert caught.value.exit_code == 2
    assert caught.value.hint


def test_table_lists_patches_and_omitted_mails() -> None:
    table = read(DATA / "reply-that-fits.mbox").table()
    assert table == [
        f"{DATA / 'reply-that-fits.mbox'}: 2 patches",
        "  1/2 disk: spell three (Ann Author)",
        "  2/2 disk: spell ten (Ann Author)",
        f"  left out: Re: [PATCH 2/2] disk: spell ten (Rob Reviewer): {REPLY}",
    ]


def test_encoded_headers_are_decoded() -> None:
    first = read(DATA / "encoded-subject.mbox").patches[0]
    assert (first.number, first.subject, first.author) == (1, "disk: spell thrëë", "Änn Author")


def test_base_commit_of_a_cover_letter_is_kept() -> None:
    parsed = read(DATA / "cover-interdiff")
    assert parsed.base_commit == "0123456789abcdef0123456789abcdef01234567"
    assert parsed.change_id == "20261101-spell-3f2a1b"
    assert parsed.prerequisites == (
        "prerequisite-patch-id: 89abcdef0123456789abcdef0123456789abcdef",
    )


class TestVersion:
    def test_newest_version_is_the_default(self, tmp_path: Path) -> None:
        newest = read(DATA / "two-versions")
        assert (newest.version, newest.versions) == (2, (1, 2))
        older = read(DATA / "two-versions", 1)
        assert older.version == 1
        assert "line THREE" in patched(older, tmp_path / "tree")
        assert [part.why for part in older.omitted] == ["a newer version, v2 (2 patches)"]

    def test_missing_version_is_refused(self) -> None:
        with pytest.raises(UsageError, match="has no version 3 .*, but v1, v2"):
            read(DATA / "two-versions", 3)

    def test_older_version_can_replace_an_incomplete_one(self, tmp_path: Path) -> None:
        parsed = read(DATA / "respin-of-one.mbox", 1)
        assert patched(parsed, tmp_path / "tree") == text(ALL)

    def test_diff_without_a_subject_has_version_0(self) -> None:
        assert read(DATA / "comma, and space", 2).version == 0


class TestPrefixes:
    def test_prefixes_are_normalized(self, tmp_path: Path) -> None:
        """With a/ and b/, i/ and w/ or none, so the cache key is the same."""
        tree = small_tree(tmp_path / "tree")
        inputs = ("no-prefix.patch", "indented-example.patch")
        forms = {series.in_usual_form(tree, read(DATA / name).patches)[0].text for name in inputs}
        assert len(forms) == 1

    def test_quilt_series_sets_the_strip_level(self) -> None:
        assert [patch.strip for patch in read(DATA / "quilt").patches] == [0, 1, None]

    def test_new_file_without_a_prefix(self, tmp_path: Path) -> None:
        tree = small_tree(tmp_path / "tree")
        path = tmp_path / "new.diff"
        path.write_text(
            "diff --git block/sub/new.c block/sub/new.c\nnew file mode 100644\n"
            "--- /dev/null\n+++ block/sub/new.c\n@@ -0,0 +1 @@\n+new\n"
            "diff --git block/top.c block/top.c\nnew file mode 100644\n"
            "--- /dev/null\n+++ block/top.c\n@@ -0,0 +1 @@\n+top\n"
        )
        (patch,) = series.in_usual_form(tree, read(path).patches)
        assert b"+++ b/block/sub/new.c\n" in patch.text
        assert b"+++ b/block/top.c\n" in patch.text
        assert patch.text.count(b"--- /dev/null\n") == 2
