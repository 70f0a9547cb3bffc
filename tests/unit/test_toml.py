# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files of users: reading, and messages for invalid files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from blockyard.kernel.host import toml
from blockyard.kernel.host.errors import UsageError


class Thing(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    size: int = 0
    parts: tuple[dict[str, int], ...] = ()


def problem(data: bytes) -> str:
    with pytest.raises(UsageError) as caught:
        toml.decode(data, Thing, "x.toml")
    return caught.value.what


def test_byte_order_mark_is_ignored() -> None:
    assert toml.decode(b'\xef\xbb\xbfname = "a"\n', Thing, "x.toml") == Thing("a")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'name = "a"\nsize 5\n', "Expected '=' after a key in a key/value pair (at line 2"),
        (b'name = "a"\n\nsize = "5"\n', "got `str` - at `$.size` (line 3)"),
        (b'name = "a"\nsiz = 5\n', "unknown field `siz` (line 2)"),
        (b'name = "a"\n[[parts]]\nx = "1"\n', "at `$.parts[0][...]`"),
        (b'name = "a"\n# \xff\n', "line 2 is not UTF-8 text"),
        (b"size = 1" + b"0" * 5000, "digits"),
        (b"size = 1e999", "float"),
        (b"size = 2020-02-31", "at line 1"),
    ],
)
def test_error_names_the_line(data: bytes, words: str) -> None:
    what = problem(data)
    assert what.startswith("x.toml: ")
    assert words in what


@pytest.mark.parametrize(
    "data",
    [
        b"size = " + b"[" * 5000,
        b"size = " + b"[" * 5000 + b"]" * 5000,
        b"size = " + b"{a=" * 5000,
        b"size" + b".a" * 300_000 + b" = 1",
        b"[size" + b' . "a"' * 5000 + b"]",
        b"[" * 100,
    ],
    ids=lambda data: data[:12].decode(),
)
def test_depth_is_checked_before_parsing(data: bytes) -> None:
    started = time.process_time()
    assert problem(b"# one\n" + data) == "x.toml: line 2 nests more than 16 levels deep"
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "text",
    [
        "see https://a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s/ [[[[[[[[[[[[[[[[[[[[",
        "[" * 40,
        "a." * 40,
    ],
)
@pytest.mark.parametrize("quotes", ['"', "'", '"""', "'''"])
def test_brackets_and_dots_in_strings_do_not_count_as_depth(text: str, quotes: str) -> None:
    data = f"name = {quotes}{text}{quotes} # {text}\n".encode()
    assert toml.decode(data, Thing, "x.toml").name == text


def test_escaped_quote_does_not_end_a_string() -> None:
    text = 'name = "a\\"[[[[[[[[[[[[[[[[[[[[[["\n'
    assert toml.decode(text.encode(), Thing, "x.toml").name.startswith('a"[')


@pytest.mark.parametrize("start", ['"""', "'''", '"', '"""\\', 'a = """""'])
def test_unterminated_string_is_read_in_linear_time(start: str) -> None:
    started = time.process_time()
    problem(b'"""' + start.encode() * 100_000)
    assert time.process_time() - started < 2


class TestFiles:
    def test_valid_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "x.toml").write_text('name = "a"\n')
        assert toml.read(tmp_path / "x.toml", Thing, "the thing") == Thing("a")

    def test_fifo_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.toml")
        with pytest.raises(
            UsageError, match=r"cannot read the thing .*/x.toml: it is not a regular"
        ):
            toml.read(tmp_path / "x.toml", Thing, "the thing")

    def test_device_is_refused(self) -> None:
        with pytest.raises(UsageError, match="not a regular file"):
            toml.read(Path("/dev/zero"), Thing, "the thing")

    def test_large_file_is_refused(self, tmp_path: Path) -> None:
        with open(tmp_path / "x.toml", "wb") as file:
            file.truncate(100 << 30)
        with pytest.raises(UsageError, match="larger than 1 MiB"):
            toml.read(tmp_path / "x.toml", Thing, "the thing")

    def test_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="No such file or directory"):
            toml.read(tmp_path / "x.toml", Thing, "the thing")
