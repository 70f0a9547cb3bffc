# SPDX-License-Identifier: GPL-2.0-or-later
"""Which posting of a series is selected among RFCs, patches and resends."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.sources.patches import Series
from blockyard.kernel.sources.reader import read

DIFF = "--- a/block/x.c\n+++ b/block/x.c\n@@ -1 +1 @@\n-a\n+{}\n"
QUARTER = "Thu, 1 {} 2026 12:00:00 +0000"


def mail(
    subject: str, id: str, to: str = "", *, word: str = "", date: str = "", diff: bool = True
) -> str:
    """Return a mail; `word` is the line that its diff adds."""
    headers = f"Message-ID: <{id}@x>\n"
    headers += f"In-Reply-To: <{to}@x>\n" if to else ""
    headers += f"Date: {QUARTER.format(date)}\n" if date else ""
    return (
        f"From a Mon Sep 17 00:00:00 2001\nFrom: A <a@example.org>\nSubject: {subject}\n{headers}\n"
        f"Why.\n---\n{DIFF.format(word or id) if diff else ''}-- \n2.47.3\n\n"
    )


def pair(tags: str, id: str, *, to: str = "", date: str = "", words: str = "") -> list[str]:
    """Return a series of two patches in a thread."""
    first, second = (f"{id}{number}" for number in (1, 2))
    return [
        mail(f"[{tags} 1/2] a", first, to, date=date, word=words and f"{words}1"),
        mail(f"[{tags} 2/2] b", second, first, date=date, word=words and f"{words}2"),
    ]


def select(folder: Path, mails: list[str], version: int | None = None) -> Series:
    path = folder / "thread.mbox"
    path.write_text("".join(mails))
    return read(path, version)


def words(series: Series) -> list[str]:
    """Return the line that each patch adds."""
    return [patch.text.decode().splitlines()[-1][1:] for patch in series.patches]


@pytest.mark.parametrize(
    ("mails", "expected"),
    [
        (pair("RFC v2", "r") + pair("PATCH", "p", to="r1"), ["p1", "p2"]),
        (pair("PATCH", "p", to="r1") + pair("RFC v2", "r"), ["p1", "p2"]),
        (pair("RFC v2", "r", date="Jan") + pair("PATCH", "p", date="Apr"), ["p1", "p2"]),
        (pair("RFC PATCH", "r", date="Jan") + pair("PATCH", "p", date="Apr"), ["p1", "p2"]),
        (pair("RFC PATCH", "r") + pair("PATCH v2", "p"), ["p1", "p2"]),
        (pair("PATCH", "p", date="Jan") + pair("RFC PATCH v2", "r", date="Apr"), ["r1", "r2"]),
        (
            [mail("[RFC v2] a", "r"), mail("[PATCH] a", "p", "r")],
            ["p"],
        ),
        (
            pair("RFC", "r", date="Jan")
            + pair("RFC v3", "s", date="Feb")
            + pair("PATCH", "p", date="Mar")
            + pair("PATCH v2", "q", date="Apr"),
            ["q1", "q2"],
        ),
        ([pair("RFC PATCH", "r")[0], pair("PATCH", "r")[1]], ["r1", "r2"]),
        (pair("RFC/PATCH v2", "r", words="w") + pair("PATCH v2", "p", words="w"), ["w1", "w2"]),
    ],
    ids=["answered", "any-order", "date", "same-version", "version", "rfc-newer", "single",
         "many", "tag-of-one", "unchanged"],
)  # fmt: skip
def test_patches_are_newer_than_their_rfc(
    tmp_path: Path, mails: list[str], expected: list[str]
) -> None:
    assert words(select(tmp_path, mails)) == expected


@pytest.mark.parametrize(
    "mails",
    [
        pair("RFC PATCH", "r") + pair("PATCH", "p"),
        pair("RFC v2", "r") + pair("PATCH", "p"),
        pair("RFC v2", "r", date="Jan") + pair("PATCH", "p", date="Jan"),
        pair("RFC v1", "r", date="Apr") + pair("PATCH v2", "p", date="Jan"),
    ],
    ids=["no-date", "no-date-newer-version", "same-date", "dates-against-versions"],
)
def test_ambiguous_postings_ask_for_a_version(tmp_path: Path, mails: list[str]) -> None:
    with pytest.raises(UsageError, match=r"cannot tell which of '\[RFC.* 1/2\] a' and") as caught:
        select(tmp_path, mails)
    assert "'[PATCH" in str(caught.value)
    number = 2 if "PATCH v2" in mails[2] else 1
    assert f"--series-version {number} takes the patches" in (caught.value.hint or "")
    assert words(select(tmp_path, mails, number)) == ["p1", "p2"]


def test_series_version_selects_the_rfc(tmp_path: Path) -> None:
    mails = pair("RFC v2", "r") + pair("PATCH", "p", to="r1")
    series = select(tmp_path, mails, 2)
    assert words(series) == ["r1", "r2"]
    assert [posting.why for posting in series.omitted] == ["not the RFC, v1 (2 patches)"]
    series = select(tmp_path, mails)
    assert [posting.why for posting in series.omitted] == ["an RFC, v2 (2 patches)"]


def test_fix_in_reply_to_an_rfc_is_not_a_posting(tmp_path: Path) -> None:
    mails = [mail("[RFC] a", "r"), mail("[PATCH] fix for a", "f", "r")]
    assert words(select(tmp_path, mails)) == ["r"]


def resent(*, cover: str, to: str = "") -> list[str]:
    """Return a series and its resend, in which the second patch differs."""
    return [
        mail("[PATCH 0/2] s", "c", diff=False),
        mail("[PATCH 1/2] a", "a", "c", word="same"),
        mail("[PATCH 2/2] b", "b", "c", word="old"),
        mail(f"[{cover} 0/2] s", "d", to, diff=False),
        mail(f"[{cover} 1/2] a", "e", "d", word="same"),
        mail(f"[{cover} 2/2] b", "f", "d", word="new"),
    ]


@pytest.mark.parametrize("to", ["", "c"])
@pytest.mark.parametrize("tags", ["RESEND PATCH", "PATCH RESEND", "RESEND"])
@pytest.mark.parametrize("seed", range(4))
def test_resend_replaces_the_first_posting(tmp_path: Path, tags: str, to: str, seed: int) -> None:
    mails = resent(cover=tags, to=to)
    random.Random(seed).shuffle(mails)
    series = select(tmp_path, mails)
    assert words(series) == ["same", "new"]
    assert "sent again, v1 (2 patches)" in [posting.why for posting in series.omitted]


def test_second_posting_without_resend_tag_is_ambiguous(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"two series with '\[PATCH 1/2\] a'"):
        select(tmp_path, resent(cover="PATCH"))


def test_unchanged_resend_of_one_patch_is_a_duplicate(tmp_path: Path) -> None:
    again = mail("[RESEND PATCH 2/2] b", "f", word="p2")
    for mails in ([*pair("PATCH", "p"), again], [again, *pair("PATCH", "p")]):
        series = select(tmp_path, mails)
        assert words(series) == ["p1", "p2"]
        assert [posting.why for posting in series.omitted] == ["a duplicate"]


def test_patch_count_above_the_limit_is_refused(tmp_path: Path) -> None:
    for total in ("99999", "9" * 50):
        with pytest.raises(UsageError, match=rf"'\[PATCH 1/{total}\] a' has more than 1000"):
            select(tmp_path, [mail(f"[PATCH 1/{total}] a", "a")])
