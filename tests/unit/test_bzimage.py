# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding the payload of a bzImage. zstd is replaced by a function that keeps its input."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from blockyard.kernel.build import bzimage
from blockyard.tests.unit import samples

ZSTD = bytes.fromhex("28b52ffd") + b"a kernel"
SIZE = struct.pack("<I", 4096)


def image(payload: bytes, sectors: int = 3, offset: int = 40) -> bytes:
    """A bzImage: boot sector, `sectors` of setup code, then code with the payload in it."""
    setup = bytearray((sectors + 1) * 512)
    setup[0x1F1] = sectors
    struct.pack_into("<II", setup, 0x248, offset, len(payload))
    return bytes(setup) + b"x" * offset + payload + b"the end"


@pytest.fixture
def unpacked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[bytes]:
    """Payloads that zstd was called with."""
    payloads: list[bytes] = []

    def run(argv: Sequence[str], *, log: Path, doing: str) -> None:
        assert "zstd" in argv
        log.touch()
        payloads.append((tmp_path / "packed").read_bytes())

    monkeypatch.setattr(bzimage, "run", run)
    return payloads


def unpack(data: bytes, folder: Path) -> None:
    path = folder / "bzImage"
    path.write_bytes(data)
    bzimage.unpack(path, folder, samples.tools(folder / "tools"))


@pytest.mark.parametrize("sectors", [3, 39])
def test_payload_is_unpacked(tmp_path: Path, unpacked: list[bytes], sectors: int) -> None:
    """Without the size that the kernel's makefiles append."""
    unpack(image(ZSTD + SIZE, sectors), tmp_path)
    assert unpacked == [ZSTD]
    assert not (tmp_path / "unpack.log").exists()


def test_payload_of_another_compressor_is_left(tmp_path: Path, unpacked: list[bytes]) -> None:
    unpack(image(bytes.fromhex("02214c18") + SIZE), tmp_path)
    assert unpacked == []
    assert not (tmp_path / "packed").exists()


@pytest.mark.parametrize("data", [b"", b"MZ", bytes(0x250)])
def test_files_that_are_not_a_bzimage_are_left(
    tmp_path: Path, unpacked: list[bytes], data: bytes
) -> None:
    unpack(data, tmp_path)
    assert unpacked == []


def test_image_of_a_kernel_is_the_unpacked_one(tmp_path: Path) -> None:
    kernel = samples.kernel(tmp_path / "kernel")
    assert kernel.image == kernel.bzimage == tmp_path / "kernel" / "bzImage"
    (kernel.path / "vmlinux.bin").touch()
    assert kernel.image == kernel.path / "vmlinux.bin"
