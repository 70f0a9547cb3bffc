# SPDX-License-Identifier: GPL-2.0-or-later
"""Patch series: git's output is read back unchanged, and no file makes a reader crash or hang."""

from __future__ import annotations

import base64
import contextlib
import gzip
import lzma
import quopri
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.sources import unified
from blockyard.kernel.sources.items import items_of
from blockyard.kernel.sources.mail import mails
from blockyard.kernel.sources.patches import Series
from blockyard.kernel.sources.reader import read
from blockyard.kernel.sources.thread import series
from blockyard.tests.properties.inputs import changed, contents

DATA = PROJECT / "tests" / "unit" / "data" / "series"
SAMPLES = contents(DATA, "*.mbox") + contents(DATA, "*.patch") + contents(DATA, "cover*/*")
WORDS = (
    b"diff --git a/x b/x\n",
    b"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n",
    b"@@ -1,999999999 +1,999999999 @@\n",
    b"Content-Type: multipart/mixed; boundary=B\n",
    b"Content-Type: message/rfc822\n",
    b"Content-Transfer-Encoding: base64\n",
    b"Content-Transfer-Encoding: uuencode\n",
    b"Content-Type: text/plain; charset=punycode; format=flowed\n",
    b"\n--B\n",
    b"\n--B--\n",
    b"From mboxrd@z Thu Jan  1 00:00:00 1970\n",
    b"Subject: [PATCH v2 1/0] x\n",
    b"Subject: [PATCH 9999/9999 v999] =?koi8-r?b?/////w==?=\n",
    b"In-Reply-To: <p1@example.org>\n",
    b"Interdiff:\n",
    b"commit 0123456789abcdef0123456789abcdef01234567\n",
    b"\x1f\x8b",
)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("series")


def is_valid(series: Series) -> bool:
    """Whether each patch of a series has a diff that can be parsed again."""
    return all(
        (scan := unified.scan(patch.text)).files and not scan.problem for patch in series.patches
    )


@given(data=changed(SAMPLES, WORDS))
def test_file_is_read(data: bytes) -> None:
    with contextlib.suppress(BlockyardError):
        assert is_valid(series(items_of(mails(data, "a file"), "a file"), "a file", alone=True))


@given(changed(SAMPLES, WORDS), st.sampled_from([word for word in PACKERS if word]), st.data())
def test_compressed_file_is_read(data: bytes, suffix: str, draw: st.DataObject) -> None:
    packed = bytearray(PACKERS[suffix](data))
    for index in draw.draw(st.lists(st.integers(0, len(packed) - 1), max_size=3)):
        packed[index] ^= 1
    path = Path("/dev/shm") / f"blockyard-{random.getrandbits(64)}{suffix}"
    try:
        path.write_bytes(packed)
        with contextlib.suppress(BlockyardError):
            assert is_valid(read(path))
    finally:
        path.unlink()


@given(st.sampled_from((*WORDS, b"From a  ", b"[", b"=?", b"<a@", b"; a=", b"> ")))
def test_file_is_read_in_linear_time(word: bytes) -> None:
    for line in (word * (100_000 // len(word)), (word.strip() or b"x") * 5_000 + b"\n"):
        for head in (
            b"",
            b"From a Mon Sep 17 00:00:00 2001\nFrom: a\nSubject: ",
            b"From: a\nDate: b\n\n",
        ):
            with contextlib.suppress(BlockyardError):
                items_of(mails(head + line, "a file"), "a file")


@dataclass(frozen=True)
class Shape:
    """How a series is sent."""

    count: int
    cover: bool
    version: int
    options: tuple[str, ...]
    seed: int
    encoding: str
    packed: str
    container: str  # mbox, folder or attachments


SHAPES = st.builds(
    Shape,
    st.integers(1, 4),
    st.booleans(),
    st.integers(1, 3),
    st.lists(
        st.sampled_from(
            ("--no-signature", "--no-stat", "--thread=shallow", "--thread=deep", "--rfc",
             "--signoff", "--attach", "--inline", "--numbered-files", "--zero-commit")
        ),
        unique=True,
        max_size=3,
    ).map(tuple),
    st.integers(0, 999),
    st.sampled_from(("8bit", "quoted-printable", "base64", "crlf", "flowed")),
    st.sampled_from(tuple(PACKERS)),
    st.sampled_from(("mbox", "folder", "attachments")),
)  # fmt: skip


def git(folder: Path, *arguments: str) -> bytes:
    argv = ["git", "-c", "user.name=Änn Author", "-c", "user.email=ann@example.org"]
    argv += ["-c", "diff.suppressBlankEmpty=false", *arguments]
    return subprocess.run(argv, cwd=folder, check=True, capture_output=True).stdout


def commits(folder: Path, count: int, seed: int) -> list[bytes]:
    """Make commits with odd contents; return their diffs."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "block").mkdir(parents=True)
    rng = random.Random(seed)
    lines = [f"line {number}" for number in range(40)]
    file = folder / "block" / "disk.c"
    file.write_text("\n".join(lines) + "\n")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    odd = ("From here on", "é =3D ü", " ", "-- ", "+++ b/x", "--- a/x", "\ttab", "diff --git",
           "x" * 99, "@@ -1 +1 @@", "[PATCH 1/2]", "> quoted", "Interdiff:", "...", "")  # fmt: skip
    diffs = []
    for number in range(count):
        for _ in range(rng.randint(1, 4)):
            lines.insert(rng.randrange(len(lines)), rng.choice(odd) + str(number))
            del lines[rng.randrange(len(lines))]
        lines.append(f"change {number}")  # git refuses a commit that changes nothing
        file.write_text("\n".join(lines) + ("\n" if rng.random() < 0.8 else ""))
        if rng.random() < 0.3:
            (folder / "block" / f"new{number}.h").write_text("" if rng.random() < 0.5 else "é\n")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", f"disk: change {number}\n\nWörds.\n\n  diff --git a/x b/x\n")
        diffs.append(git(folder, "diff", "--full-index", "HEAD~1", "HEAD"))
    return diffs


def sent(mail: bytes, encoding: str) -> bytes:
    """A single-part mail in an encoding that mail programs use."""
    head, _, body = mail.partition(b"\n\n")
    if b"multipart" in head:
        return mail
    kind = b'text/plain; charset="utf-8"'
    if encoding == "crlf":
        return mail.replace(b"\n", b"\r\n")
    if encoding == "flowed":
        kind += b"; format=flowed"
        body = re.sub(rb"^ ", b"  ", body, flags=re.MULTILINE)
        encoding = "8bit"
    elif encoding == "quoted-printable":
        body = quopri.encodestring(body)
    elif encoding == "base64":
        body = base64.encodebytes(body)
    head = re.sub(rb"\n(MIME-Version|Content-[A-Za-z-]+):[^\n]*(\n[ \t][^\n]*)*", b"", head)
    head += b"\nMIME-Version: 1.0\nContent-Type: " + kind
    return head + b"\nContent-Transfer-Encoding: " + encoding.encode() + b"\n\n" + body


def attached(files: Sequence[bytes]) -> bytes:
    head = b"From: Ann <ann@example.org>\nSubject: some patches\nMIME-Version: 1.0\n"
    parts = [
        b"\n--=-odd\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
        b'Content-Disposition: attachment; filename="%d.patch"\n\n'
        % number
        + base64.encodebytes(file)
        for number, file in enumerate(files, 1)
    ]
    return (
        head
        + b'Content-Type: multipart/mixed; boundary="=-odd"\n\n'
        + b"".join(parts)
        + b"--=-odd--\n"
    )


def without_ids(text: bytes) -> bytes:
    return re.sub(rb"^index [0-9a-f.]+", b"index", text, flags=re.MULTILINE)


@settings(max_examples=max(10, settings().max_examples // 4), deadline=None)  # git is slow
@given(shape=SHAPES)
def test_formatted_patches_are_read_back(folder: Path, shape: Shape) -> None:
    repository, out = folder / "repository", folder / "out"
    diffs = commits(repository, shape.count, shape.seed)
    shutil.rmtree(out, ignore_errors=True)
    options = [*shape.options, f"--reroll-count={shape.version}"]
    options += ["--cover-letter"] * shape.cover
    git(repository, "format-patch", "-q", "-o", str(out), *options, f"-{shape.count}")
    pack = PACKERS[shape.packed]
    paths = sorted(out.iterdir(), key=by_number)
    files = [sent(path.read_bytes(), shape.encoding) for path in paths]
    source = out
    if shape.container == "folder":
        for path, data in zip(paths, files, strict=True):
            path.write_bytes(pack(data))
    else:
        if shape.container == "attachments":
            files = [attached(files)]
        elif shape.options.count("--numbered-files") == 0:
            random.Random(shape.seed).shuffle(files)
        newline = b"\r\n" if shape.encoding == "crlf" else b"\n"
        source = folder / f"thread{shape.packed}"
        source.write_bytes(pack(newline.join(files)))
    result = read(source)
    texts = [without_ids(patch.text) for patch in result.patches]
    assert texts == [without_ids(diff) for diff in diffs]
    assert [patch.number for patch in result.patches] in ([0], list(range(1, shape.count + 1)))
    assert len(result.omitted) == shape.cover


def by_number(path: Path) -> int:
    """The number of a patch from its file name, such as v2-0001-x.patch or 1; else 0."""
    match = re.fullmatch(r"(?:v\d+-)?(\d+).*", path.name)
    return int(match[1]) if match else 0
