# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a patch series, and the messages for one that does not apply.

The forms that a series can have are in test_series_cases.py.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources import reader, series, thread, unified

DIFF = """\
diff --git a/block/x.c b/block/x.c
--- a/block/x.c
+++ b/block/x.c
@@ -1 +1 @@
-{old}
+{new}
"""


def diff(old: str, new: str) -> str:
    return DIFF.format(old=old, new=new)


def mail(subject: str, text: str, headers: str = "") -> str:
    return (
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
        f"From: A Developer <a@example.org>\nSubject: {subject}\n{headers}\n"
        f"Why.\n---\n{text}-- \n2.47.3\n\n"
    )


def names(path: Path) -> list[str]:
    return [patch.name for patch in series.read(path).patches]


class TestFolder:
    def test_patches_are_sorted_by_name(self, tmp_path: Path) -> None:
        for name in ("0010-c.patch", "0002-b.patch", "0001-a.diff"):
            (tmp_path / name).write_text(diff("a", "b"))
        (tmp_path / "README").write_text(diff("no", "patch"))
        assert names(tmp_path) == ["0001-a.diff", "0002-b.patch", "0010-c.patch"]

    def test_quilt_series_selects_and_orders(self, tmp_path: Path) -> None:
        for name in ("a.patch", "b.patch", "left-out.patch"):
            (tmp_path / name).write_text(diff("a", "b"))
        (tmp_path / "series").write_text("# ours\nb.patch -p1\n\na.patch # last\n")
        assert names(tmp_path) == ["b.patch", "a.patch"]

    @pytest.mark.parametrize("name", ["gone.patch", "../outside.patch"])
    def test_quilt_series_with_a_missing_file_is_refused(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "outside.patch").write_text(diff("a", "b"))
        folder = tmp_path / "patches"
        folder.mkdir()
        (folder / "series").write_text(f"{name}\n")
        with pytest.raises(UsageError, match="series names .*which is not a regular file"):
            series.read(folder)


class TestMailbox:
    def test_thread_is_sorted_and_replies_are_omitted(self, tmp_path: Path) -> None:
        reply = "> --- a/block/x.c\n> +++ b/block/x.c\n> @@ -1 +1 @@\nNo.\n"
        mails = [
            mail("[PATCH v2 2/2] second", diff("b", "c")),
            mail("[PATCH v2 0/2] It", ""),
            mail("Re: [PATCH v2 1/2] first", reply),
            mail("[PATCH v2 1/2] first", diff("a", "b")),
        ]
        (tmp_path / "thread").write_text("".join(mails))
        assert names(tmp_path / "thread") == ["[PATCH v2 1/2] first", "[PATCH v2 2/2] second"]

    def test_unnumbered_patches_keep_the_order_of_the_file(self, tmp_path: Path) -> None:
        mails = [mail("[PATCH] z", diff("a", "b")), mail("[PATCH] a", diff("b", "c"))]
        (tmp_path / "two").write_text("".join(mails))
        assert names(tmp_path / "two") == ["[PATCH] z", "[PATCH] a"]

    def test_from_in_a_text_does_not_start_a_mail(self, tmp_path: Path) -> None:
        text = mail("[PATCH 1/2] one", diff("a", "From here on")) + mail(
            "[PATCH 2/2] two", diff("From here on", "c")
        ).replace("Why.", "From here on it is faster.")
        (tmp_path / "mbox").write_text(text)
        assert names(tmp_path / "mbox") == ["[PATCH 1/2] one", "[PATCH 2/2] two"]

    def test_encoded_mails_are_decoded(self, tmp_path: Path) -> None:
        headers = (
            "Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: quoted-printable\n"
        )
        coded = diff("a", "b =3D c; // =C3=A9")
        (tmp_path / "one.patch").write_text(mail("[PATCH] one", coded, headers))
        (patch,) = series.read(tmp_path / "one.patch").patches
        assert patch.name == "one.patch"
        assert "+b = c; // é\n".encode() in patch.text

    def test_crlf_of_a_mail_program_becomes_lf(self, tmp_path: Path) -> None:
        (tmp_path / "one.patch").write_bytes(diff("a", "b").replace("\n", "\r\n").encode())
        (patch,) = series.read(tmp_path / "one.patch").patches
        assert patch.text == diff("a", "b").encode()


class TestEmpty:
    @pytest.mark.parametrize("text", ["", "words\n", mail("[PATCH 0/2] It", "")])
    def test_file_without_a_patch_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        with pytest.raises(UsageError, match="file has no patches"):
            series.read(tmp_path / "file")

    def test_empty_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="has no patches"):
            series.read(tmp_path)

    def test_missing_path_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such patch series: .*/gone"):
            series.read(tmp_path / "gone")


@pytest.mark.parametrize(
    ("output", "refusals"),
    [
        (
            "patching file block/x.c\npatching file 'block/y z.c'\nHunk #1 succeeded at 9\n"
            "Hunk #2 FAILED at 12.\n1 out of 2 hunks FAILED\n",
            ["block/y z.c: hunk 2 does not fit at line 12"],
        ),
        ("patch: **** malformed patch at line 4: x\n", ["malformed patch at line 4: x"]),
        (
            "|diff --git a/block/x.c b/block/x.c\n|old mode 100644\nNo file to patch.  Skipping\n",
            ["block/x.c: no such file"],
        ),
        (
            "The next patch would delete the file block/x.c,\nwhich does not exist!  Skipping\n",
            ["block/x.c: no such file"],
        ),
        (
            "Cannot rename file without two valid file names\n",
            ["cannot rename a file that the same patch moves, or whose name has a space"],
        ),
        ("something new\n", ["something new"]),
    ],
)
def test_refusals_name_file_and_hunk(output: str, refusals: list[str]) -> None:
    assert series.refusals(output) == refusals


def test_hunks_at_other_lines_are_named() -> None:
    output = "patching file block/y.c (renamed from block/x.c)\n"
    output += (
        "Hunk #1 succeeded at 2 (offset -13 lines).\nHunk #2 succeeded at 9 (offset 1 line).\n"
    )
    offsets = series.offsets(output)
    assert offsets == [
        "hunk 1 of block/y.c fits 13 lines further up",
        "hunk 2 of block/y.c fits 1 line further down",
    ]
    many = "".join(f"Hunk #{at} succeeded at 9 (offset 3 lines).\n" for at in range(1, 9))
    assert series.offsets(f"patching file x\n{many}")[5:] == ["and 3 more hunks"]


class TestUnusualFiles:
    """Fifos, devices, links and other files: nothing blocks, and no link is followed."""

    @pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
    @pytest.mark.parametrize("in_folder", [True, False])
    def test_fifo_or_device_is_refused(
        self, tmp_path: Path, make: Callable[[Path], None], in_folder: bool
    ) -> None:
        path = tmp_path / "0001.patch"
        make(path)
        with pytest.raises(UsageError, match="cannot read the patch series"):
            series.read(tmp_path if in_folder else path)

    def test_link_out_of_the_folder_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text(diff("a", "b"))
        folder = tmp_path / "patches"
        folder.mkdir()
        (folder / "0001.patch").symlink_to(tmp_path / "secret")
        with pytest.raises(UsageError, match=r"cannot open 0001\.patch"):
            series.read(folder)

    def test_backup_files_of_editors_are_ignored(self, tmp_path: Path) -> None:
        for name in ("0001-a.patch", "0001-a.patch~", ".0002-b.patch.swp", "0003-c.patch.orig"):
            (tmp_path / name).write_text(diff("a", "b"))
        assert names(tmp_path) == ["0001-a.patch"]

    def test_file_without_a_patch_suffix_is_listed_as_omitted(self, tmp_path: Path) -> None:
        for name in ("0001-a.patch", "README"):
            (tmp_path / name).write_text(diff("a", "b"))
        (omitted,) = series.read(tmp_path).omitted
        assert omitted.what == "README"

    def test_mails_without_a_suffix_are_read(self, tmp_path: Path) -> None:
        for number in (1, 2):
            (tmp_path / f"mail-{number}").write_text(mail(f"[PATCH {number}/2] x", diff("a", "b")))
        assert names(tmp_path) == ["mail-1", "mail-2"]

    def test_stdin_can_be_read_twice(self, tmp_path: Path) -> None:
        """The series is checked and later applied; the stream is read once and kept."""
        script = (
            "from pathlib import Path; from blockyard.kernel.spec import KernelSpec;"
            "from blockyard.kernel.sources.reader import read;"
            "stream = Path('/dev/stdin'); KernelSpec(series=(stream,)).checked();"
            "print(len(read(stream).patches))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            input=(mail("[PATCH 1/2] a", diff("a", "b")) + mail("[PATCH 2/2] b", diff("b", "c"))),
            capture_output=True,
            text=True,
            check=True,
            cwd=PROJECT,
        )
        assert done.stdout == "2\n"


class TestThread:
    def test_duplicate_posting_is_used_once(self, tmp_path: Path) -> None:
        first = mail("[PATCH 1/1] a", diff("a", "b"), "Message-ID: <1@x>\n")
        again = mail("[PATCH RESEND 1/1] a", diff("a", "b"), "Message-ID: <2@x>\n")
        (tmp_path / "mbox").write_text(first + again)
        result = series.read(tmp_path / "mbox")
        assert len(result.patches) == 1
        assert [mail.why for mail in result.omitted] == ["a duplicate"]

    def test_two_patches_with_the_same_number_are_refused(self, tmp_path: Path) -> None:
        answer = "In-Reply-To: <0@x>\n"
        text = "".join(
            mail(f"[PATCH 1/1] {word}", diff("a", word), f"Message-ID: <{word}@x>\n{answer}")
            for word in ("b", "c")
        )
        (tmp_path / "mbox").write_text(text)
        with pytest.raises(
            UsageError, match=r"two patches 1/1: '\[PATCH 1/1\] b' and '\[PATCH 1/1\] c'"
        ):
            series.read(tmp_path / "mbox")

    def test_two_series_in_one_file_are_both_read(self, tmp_path: Path) -> None:
        text = "".join(
            mail(f"[PATCH {number}/2] {name}{number}", diff("a", f"{name}{number}"))
            for name in ("x", "y")
            for number in (1, 2)
        )
        (tmp_path / "mbox").write_text(text)
        assert [patch.subject for patch in series.read(tmp_path / "mbox").patches] == [
            "x1", "x2", "y1", "y2",
        ]  # fmt: skip

    def test_reply_saved_alone_is_a_patch(self, tmp_path: Path) -> None:
        (tmp_path / "idea.eml").write_text(mail("Re: [PATCH 2/7] x", diff("a", "b")))
        assert names(tmp_path / "idea.eml") == ["idea.eml"]

    def test_single_patch_of_a_series_can_be_named(self, tmp_path: Path) -> None:
        (tmp_path / "0002.patch").write_text(mail("[PATCH 2/7] x", diff("a", "b")))
        assert names(tmp_path / "0002.patch") == ["0002.patch"]
        with pytest.raises(UsageError, match="patch 1, 3, 4, 5, 6, 7 of 7 is missing"):
            series.read(tmp_path)

    def test_new_version_of_a_single_patch_in_its_thread(self, tmp_path: Path) -> None:
        first = mail("[PATCH] x", diff("a", "b"), "Message-ID: <1@x>\n")
        second = mail("[PATCH v2] x, in other words", diff("a", "c"), "In-Reply-To: <1@x>\n")
        (tmp_path / "mbox").write_text(first + second)
        assert [patch.version for patch in series.read(tmp_path / "mbox").patches] == [2]

    def test_crlf_of_a_whole_thread_becomes_lf(self, tmp_path: Path) -> None:
        mails = [mail("[PATCH 2/2] b", diff("b", "c")), mail("[PATCH 1/2] a", diff("a", "b"))]
        (tmp_path / "mbox").write_bytes("".join(mails).replace("\n", "\r\n").encode())
        patches = series.read(tmp_path / "mbox").patches
        assert [patch.text for patch in patches] == [
            diff("a", "b").encode(),
            diff("b", "c").encode(),
        ]

    def test_carriage_returns_in_the_patched_file_are_kept(self, tmp_path: Path) -> None:
        text = diff("a\r", "b\r").encode()
        (tmp_path / "one.diff").write_bytes(text)
        assert series.read(tmp_path / "one.diff").patches[0].text == text


class TestDamaged:
    CUT = diff("a", "b").replace("@@ -1 +1 @@", "@@ -1,9 +1,9 @@")

    def test_damaged_diff_of_an_older_version_is_ignored(self, tmp_path: Path) -> None:
        text = mail("[PATCH 1/1] x", self.CUT) + mail("[PATCH v2 1/1] x", diff("a", "b"))
        (tmp_path / "mbox").write_text(text)
        assert series.read(tmp_path / "mbox").version == 2
        with pytest.raises(UsageError, match="the hunk of line"):
            series.read(tmp_path / "mbox", 1)

    def test_damaged_diff_of_a_reply_is_ignored(self, tmp_path: Path) -> None:
        text = mail("[PATCH 1/1] x", diff("a", "b")) + mail("Re: [PATCH 1/1] x", self.CUT)
        (tmp_path / "mbox").write_text(text)
        assert len(series.read(tmp_path / "mbox").patches) == 1

    def test_damaged_diff_of_the_series_is_refused(self, tmp_path: Path) -> None:
        text = mail("[PATCH 1/2] x", diff("a", "b")) + mail("[PATCH 2/2] y", self.CUT)
        (tmp_path / "mbox").write_text(text)
        with pytest.raises(UsageError, match=r"cannot read the patch \[PATCH 2/2\] y, line"):
            series.read(tmp_path / "mbox")

    @pytest.mark.parametrize("broken", ["text", "attached"])
    def test_attached_patch_replaces_a_damaged_inline_one(
        self, tmp_path: Path, broken: str
    ) -> None:
        good = diff("a", "b")
        inline, attached = (self.CUT, good) if broken == "text" else (good, self.CUT)
        parts = (
            f"--B\nContent-Type: text/plain\n\n{inline}\n--B\nContent-Type: text/x-patch\n"
            f"Content-Disposition: attachment; filename=x.patch\n\n{attached}\n--B--\n"
        )
        (tmp_path / "x.eml").write_text(
            f"From: a\nSubject: [PATCH] x\nContent-Type: multipart/mixed; boundary=B\n\n{parts}"
        )
        if broken == "text":
            assert series.read(tmp_path / "x.eml").patches[0].text == good.encode()
        else:
            with pytest.raises(UsageError, match=r"cannot read the patch x\.patch"):
                series.read(tmp_path / "x.eml")


class TestSize:
    def test_hostile_lines_are_read_in_linear_time(self, tmp_path: Path) -> None:
        """A regular expression that backtracks took hours on each of them."""
        odd = (
            b"From " + b"a" * 200_000 + b" " * 200_000,
            b"From a 00:00:00 2001\n" * 20_000,
            b"Subject: " + b"=?utf-8?q?" * 40_000,
            b"Content-Type: text/plain" + b"; a=b" * 80_000,
            b"From: " + b"(" * 400_000,
            b"[PATCH " * 50_000,
            b"--- a\n+++ b\n" * 30_000,
            b"diff --git " * 40_000,
            b"commit " + b"0" * 400_000,
            b"--" + b"-" * 400_000 + b"--",
        )
        started = time.process_time()
        for number, line in enumerate(odd):
            head = b"From a Mon Sep 17 00:00:00 2001\nFrom: a\nSubject: b\n"
            path = tmp_path / f"{number}.patch"
            for before in (b"", head, head + b"\n"):
                path.write_bytes(before + line + b"\n\n" + diff("a", "b").encode())
                with contextlib.suppress(UsageError):
                    series.read(path)
        assert time.process_time() - started < 20

    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
    def test_decompression_bomb_is_refused(
        self, tmp_path: Path, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reader, "SERIES_BYTES", 1 << 20)
        (tmp_path / "a.patch").write_bytes(pack(bytes(2 << 20)))
        with pytest.raises(UsageError, match=r"cannot unpack a\.patch: it is larger than 1 MiB"):
            series.read(tmp_path / "a.patch")

    def test_number_of_patches_is_limited(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(thread, "PATCHES", 1)
        mails = [mail("[PATCH] z", diff("a", "b")), mail("[PATCH] a", diff("b", "c"))]
        (tmp_path / "two").write_text("".join(mails))
        with pytest.raises(UsageError, match="more than 1 patches"):
            series.read(tmp_path / "two")

    def test_depth_of_nested_mails_is_limited(self, tmp_path: Path) -> None:
        inner = "".join(
            f"From: a\nSubject: b\nContent-Type: multipart/mixed; boundary={number}\n\n--{number}\n"
            "Content-Type: message/rfc822\n\n"
            for number in range(200)
        )
        (tmp_path / "deep").write_text(inner)
        with pytest.raises(UsageError, match="cannot read"):
            series.read(tmp_path / "deep")


@pytest.mark.parametrize(
    ("quoted", "name"),
    [
        (r'"b/t\303\274r"', "b/tür"),
        (r'"b/a\tb\"c\\d"', 'b/a\tb"c\\d'),
        (r'"b/\970"', "b/970"),
        (r'"b/\7"', "b/7"),
        (r'"b/\777"', "b/777"),
    ],
)
def test_quoted_name_is_decoded(quoted: str, name: str) -> None:
    """As git quotes it, and escapes that git never writes (found by fuzzing)."""
    text = f"--- a/x\n+++ {quoted}\n@@ -1 +1 @@\n-a\n+b\n"
    assert unified.scan(text.encode()).files[0].new == name
