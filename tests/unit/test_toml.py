# SPDX-License-Identifier: GPL-2.0-or-later
"""TOML files of other people: what is read, and what is said of one that cannot be."""

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


def test_a_byte_order_mark_does_no_harm() -> None:
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
def test_a_mistake_is_named_with_its_line(data: bytes, words: str) -> None:
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
def test_depth_is_limited_before_it_is_parsed(data: bytes) -> None:
    begun = time.process_time()
    assert problem(b"# one\n" + data) == "x.toml: line 2 nests more than 16 levels deep"
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "text",
    [
        "see https://a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s/ [[[[[[[[[[[[[[[[[[[[",
        "[" * 40,
        "a." * 40,
    ],
)
@pytest.mark.parametrize("quotes", ['"', "'", '"""', "'''"])
def test_brackets_and_dots_in_strings_are_no_depth(text: str, quotes: str) -> None:
    data = f"name = {quotes}{text}{quotes} # {text}\n".encode()
    assert toml.decode(data, Thing, "x.toml").name == text


def test_escapes_in_strings() -> None:
    text = 'name = "a\\"[[[[[[[[[[[[[[[[[[[[[["\n'
    assert toml.decode(text.encode(), Thing, "x.toml").name.startswith('a"[')


@pytest.mark.parametrize("start", ['"""', "'''", '"', '"""\\', 'a = """""'])
def test_a_string_without_an_end_takes_no_long_time(start: str) -> None:
    begun = time.process_time()
    problem(b'"""' + start.encode() * 100_000)
    assert time.process_time() - begun < 2


class TestFiles:
    def test_a_good_one(self, tmp_path: Path) -> None:
        (tmp_path / "x.toml").write_text('name = "a"\n')
        assert toml.read(tmp_path / "x.toml", Thing, "the thing") == Thing("a")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "x.toml")
        with pytest.raises(
            UsageError, match=r"cannot read the thing .*/x.toml: it is not a regular"
        ):
            toml.read(tmp_path / "x.toml", Thing, "the thing")

    def test_a_device_is_not_read(self) -> None:
        with pytest.raises(UsageError, match="not a regular file"):
            toml.read(Path("/dev/zero"), Thing, "the thing")

    def test_a_large_one_is_refused(self, tmp_path: Path) -> None:
        with open(tmp_path / "x.toml", "wb") as file:
            file.truncate(100 << 30)
        with pytest.raises(UsageError, match="larger than 1 MiB"):
            toml.read(tmp_path / "x.toml", Thing, "the thing")

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="No such file or directory"):
            toml.read(tmp_path / "x.toml", Thing, "the thing")
