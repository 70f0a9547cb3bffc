# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed files: complete, damaged, and larger than the limit."""

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
    def test_round_trip(self, pack: Callable[[bytes], bytes]) -> None:
        assert unpacked(pack(DATA), "a file", 1 << 20) == DATA

    def test_concatenated_files(self, pack: Callable[[bytes], bytes]) -> None:
        assert unpacked(pack(DATA) + pack(b"end"), "a file", 1 << 20) == DATA + b"end"

    def test_empty_file(self, pack: Callable[[bytes], bytes]) -> None:
        assert unpacked(pack(b""), "a file", 0) == b""

    @pytest.mark.parametrize("kept", [10, 1000, -3])
    def test_truncated_file_is_refused(self, pack: Callable[[bytes], bytes], kept: int) -> None:
        with pytest.raises(UsageError, match="cannot unpack a file: "):
            unpacked(pack(DATA)[:kept], "a file", 1 << 20)

    def test_file_above_the_limit_is_refused(self, pack: Callable[[bytes], bytes]) -> None:
        with pytest.raises(UsageError, match="it is larger than 1 MiB"):
            unpacked(pack(bytes(2 << 20)), "a file", 1 << 20)


def test_uncompressed_data_is_unchanged() -> None:
    assert unpacked(b"plain", "a file", 0) == b"plain"
