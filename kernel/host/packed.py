# SPDX-License-Identifier: GPL-2.0-or-later
"""Unpacks compressed files that users name: gzip, xz, zstd, bzip2, detected by their magic.

The output is limited, since a few kilobytes can unpack to terabytes.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from blockyard.kernel.host.errors import UsageError

MEMORY_BYTES = 256 << 20  # for an unpacker's window; `xz -9` needs 65 MiB, `zstd --ultra` 128
_CHUNK = 1 << 20
_XZ_BYTES = 4096  # input per step
_ZSTD_BYTES = 256  # input per step: four bytes can stand for 128 KiB


class _Unpacker(Protocol):
    def read(self, size: int, /) -> bytes: ...


def _gzip(data: bytes) -> _Unpacker:
    import gzip

    return gzip.GzipFile(fileobj=io.BytesIO(data))


def _xz(data: bytes) -> _Unpacker:
    return _Xz(data)


def _zstd(data: bytes) -> _Unpacker:
    return _Zstd(data)


def _bzip2(data: bytes) -> _Unpacker:
    return bz2.BZ2File(io.BytesIO(data))


class _Xz:
    """Reads concatenated streams; lzma.LZMAFile does that too, but without a memory limit."""

    def __init__(self, data: bytes) -> None:
        self._stream = self._new()
        self._data, self._at = data, 0

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY_BYTES)

    def read(self, size: int, /) -> bytes:
        while True:
            if self._stream.eof:
                while self._data[self._at : self._at + 1] == b"\0":  # padding
                    self._at += 1
                if self._at == len(self._data):
                    return b""
                self._stream = self._new()
            piece = b""
            if self._stream.needs_input:
                piece = self._data[self._at : self._at + _XZ_BYTES]
                if not piece:
                    raise EOFError("unexpected end of file")
                self._at += len(piece)
            output = self._stream.decompress(piece, size)
            if self._stream.eof:
                self._at -= len(self._stream.unused_data)
            if output:
                return output


class _Zstd:
    """Reads concatenated frames; unlike zstandard's own reader it detects a truncated one."""

    def __init__(self, data: bytes) -> None:
        import zstandard

        self._frames = zstandard.ZstdDecompressor(max_window_size=MEMORY_BYTES)
        self._frame = self._frames.decompressobj()
        self._data, self._at = memoryview(data), 0

    def read(self, _size: int, /) -> bytes:
        while self._at < len(self._data) or not self._frame.eof:
            if self._frame.eof:
                self._frame = self._frames.decompressobj()
            piece = self._data[self._at : self._at + _ZSTD_BYTES]
            if not piece:
                raise EOFError("unexpected end of file")
            output = self._frame.decompress(piece)
            unused = len(self._frame.unused_data) if self._frame.eof else 0
            self._at += len(piece) - unused
            if output:
                return output
        return b""


_FORMATS: dict[bytes, Callable[[bytes], _Unpacker]] = {
    b"\x1f\x8b": _gzip,
    b"\xfd7zXZ\0": _xz,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"BZh": _bzip2,
}


def unpacked(data: bytes, what: str, limit: int) -> bytes:
    """The contents of a compressed file, at most `limit` bytes; other data unchanged.

    what: names the file in errors. Raises UsageError for a damaged and for a too large file.
    """
    for magic, opened in _FORMATS.items():
        if data.startswith(magic):
            return _read(opened(data), what, limit)
    return data


def _read(unpacker: _Unpacker, what: str, limit: int) -> bytes:
    pieces, size = [], 0
    try:
        while piece := unpacker.read(_CHUNK):
            size += len(piece)
            if size > limit:
                raise UsageError(f"cannot unpack {what}: it is larger than {limit >> 20} MiB")
            pieces.append(piece)
    except UsageError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, _zstd_error()) as error:
        raise UsageError(f"cannot unpack {what}: {error or 'it is damaged'}") from None
    return b"".join(pieces)


def _zstd_error() -> type[Exception]:
    import zstandard

    return zstandard.ZstdError
