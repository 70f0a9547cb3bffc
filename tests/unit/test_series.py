# SPDX-License-Identifier: GPL-2.0-or-later
"""How a series of patches is read, and what is said of one that does not apply."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.host.errors import UserError
from kernel.sources import series

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
    return [patch.name for patch in series.read(path)]


class TestFolder:
    def test_patches_come_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        for name in ("0010-c.patch", "0002-b.patch", "0001-a.diff"):
            (tmp_path / name).write_text(diff("a", "b"))
        (tmp_path / "0000-cover-letter.patch").write_text(mail("[PATCH 0/3] It", "Why.\n"))
        (tmp_path / "README").write_text(diff("no", "patch"))
        assert names(tmp_path) == ["0001-a.diff", "0002-b.patch", "0010-c.patch"]

    def test_quilt_says_which_and_in_which_order(self, tmp_path: Path) -> None:
        for name in ("a.patch", "b.patch", "left-out.patch"):
            (tmp_path / name).write_text(diff("a", "b"))
        (tmp_path / "series").write_text("# ours\nb.patch -p1\n\na.patch # last\n")
        assert names(tmp_path) == ["b.patch", "a.patch"]

    @pytest.mark.parametrize("name", ["gone.patch", "../outside.patch"])
    def test_quilt_names_no_file_that_is_not_there(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "outside.patch").write_text(diff("a", "b"))
        folder = tmp_path / "patches"
        folder.mkdir()
        (folder / "series").write_text(f"{name}\n")
        with pytest.raises(UserError, match="series names .*which is no file"):
            series.read(folder)


class TestMailbox:
    def test_a_thread_is_put_in_order_and_what_is_no_patch_left_out(self, tmp_path: Path) -> None:
        reply = "> --- a/block/x.c\n> +++ b/block/x.c\n> @@ -1 +1 @@\nNo.\n"
        mails = [
            mail("[PATCH v2 2/2] second", diff("b", "c")),
            mail("[PATCH v2 0/2] It", ""),
            mail("Re: [PATCH v2 1/2] first", reply),
            mail("[PATCH v2 1/2] first", diff("a", "b")),
        ]
        (tmp_path / "thread").write_text("".join(mails))
        assert names(tmp_path / "thread") == ["[PATCH v2 1/2] first", "[PATCH v2 2/2] second"]

    def test_without_numbers_the_order_is_the_file_s(self, tmp_path: Path) -> None:
        mails = [mail("[PATCH] z", diff("a", "b")), mail("[PATCH] a", diff("b", "c"))]
        (tmp_path / "two").write_text("".join(mails))
        assert names(tmp_path / "two") == ["[PATCH] z", "[PATCH] a"]

    def test_a_line_of_a_text_begins_no_mail(self, tmp_path: Path) -> None:
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
        (patch,) = series.read(tmp_path / "one.patch")
        assert patch.name == "one.patch"
        assert "+b = c; // é\n".encode() in patch.text

    def test_carriage_returns_of_a_mail_program_are_dropped(self, tmp_path: Path) -> None:
        (tmp_path / "one.patch").write_bytes(diff("a", "b").replace("\n", "\r\n").encode())
        (patch,) = series.read(tmp_path / "one.patch")
        assert patch.text == diff("a", "b").encode()


class TestNone:
    @pytest.mark.parametrize("text", ["", "words\n", mail("[PATCH 0/2] It", "")])
    def test_a_file_without_a_patch(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        with pytest.raises(UserError, match="file has no patches in it"):
            series.read(tmp_path / "file")

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="has no patches in it"):
            series.read(tmp_path)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="there is no patch series .*/gone"):
            series.read(tmp_path / "gone")


@pytest.mark.parametrize(
    ("told", "refusals"),
    [
        (
            "patching file block/x.c\npatching file 'block/y z.c'\nHunk #1 succeeded at 9\n"
            "Hunk #2 FAILED at 12.\n1 out of 2 hunks FAILED\n",
            ["block/y z.c: hunk 2 does not fit at line 12"],
        ),
        ("patch: **** malformed patch at line 4: x\n", ["malformed patch at line 4: x"]),
        ("something new\n", ["something new"]),
    ],
)
def test_refusals_name_file_and_hunk(told: str, refusals: list[str]) -> None:
    assert series.refusals(told) == refusals
