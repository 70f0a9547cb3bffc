# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed files: whole, damaged, and those that never end."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
from collections.abc import Callable

import pytest
import zstandard

from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.packed import unpacked

FORMATS = [gzip.compress, lzma.compress, bz2.compress, zstandard.compress]
DATA = random.Random(1).randbytes(50_000) + b"x" * 400_000


@pytest.mark.parametrize("pack", FORMATS)
class TestFormats:
    def test_what_was_packed_comes_out(self, pack: Callable[[bytes], bytes]) -> None:
        assert unpacked(pack(DATA), "a file", 1 << 20) == DATA

    def test_two_files_in_one(self, pack: Callable[[bytes], bytes]) -> None:
        assert unpacked(pack(DATA) + pack(b"end"), "a file", 1 << 20) == DATA + b"end"

    def test_an_empty_one(self, pack: Callable[[bytes], bytes]) -> None:
        assert unpacked(pack(b""), "a file", 0) == b""

    @pytest.mark.parametrize("kept", [10, 1000, -3])
    def test_one_that_ends_too_early(self, pack: Callable[[bytes], bytes], kept: int) -> None:
        with pytest.raises(UsageError, match="cannot unpack a file: "):
            unpacked(pack(DATA)[:kept], "a file", 1 << 20)

    def test_one_that_is_too_large(self, pack: Callable[[bytes], bytes]) -> None:
        with pytest.raises(UsageError, match="it is larger than 1 MiB"):
            unpacked(pack(bytes(2 << 20)), "a file", 1 << 20)


def test_other_data_is_left_as_it_is() -> None:
    assert unpacked(b"plain", "a file", 0) == b"plain"
