# SPDX-License-Identifier: GPL-2.0-or-later
"""The initramfs archive, read back."""

from __future__ import annotations

import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from blockyard.images.cpio import File, archive

FILES = [
    File("init", b"\x7fELF program", 0o755),
    File("boot/a/one.ko", b"1"),
    File("boot/a/two.ko", bytes(range(256)) * 5),
    File("boot/empty", b""),
    File("ssh/host_key", b"secret", 0o600),
]


@dataclass(frozen=True)
class Member:
    mode: int
    uid: int
    gid: int
    links: int
    mtime: int
    data: bytes


def members(data: bytes) -> dict[str, Member]:
    """The archive as the kernel's init/initramfs.c reads it."""
    found: dict[str, Member] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        size, name_size = fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        start = at + 110 + name_size
        start += -start % 4
        at = start + size + -size % 4
        text = name[:-1].decode()
        if text == "TRAILER!!!":
            assert at == len(data)
            return found
        assert text not in found
        found[text] = Member(
            fields[1], fields[2], fields[3], fields[4], fields[5], data[start : start + size]
        )


def test_files_come_back_with_data_and_mode() -> None:
    found = members(archive(FILES))
    for file in FILES:
        member = found[file.name]
        assert (member.data, member.mode) == (file.data, stat.S_IFREG | file.mode)


def test_each_directory_stands_once_and_before_its_files() -> None:
    found = members(archive(FILES))
    directories = [name for name, member in found.items() if stat.S_ISDIR(member.mode)]
    assert directories == ["boot", "boot/a", "ssh"]
    names = list(found)
    assert names.index("boot") < names.index("boot/a") < names.index("boot/a/one.ko")
    assert all(found[name].mode == stat.S_IFDIR | 0o755 for name in directories)


def test_nothing_of_the_host_is_in_it() -> None:
    for member in members(archive(FILES)).values():
        assert (member.uid, member.gid, member.mtime, member.links) == (0, 0, 0, 1)


def test_the_same_files_give_the_same_bytes() -> None:
    assert archive(FILES) == archive(list(FILES))


def test_an_empty_archive() -> None:
    assert members(archive([])) == {}


def test_archives_can_be_joined() -> None:
    """The kernel goes on after a trailer at the next multiple of four bytes."""
    first = archive(FILES[:2])
    assert len(first) % 4 == 0
    assert list(members(archive(FILES[2:]))) == ["boot", "boot/a", "boot/a/two.ko"] + [
        "boot/empty",
        "ssh",
        "ssh/host_key",
    ]


def test_the_cpio_program_agrees(tmp_path: Path) -> None:
    program = shutil.which("cpio")
    if program is None:
        pytest.skip("this host has no cpio program")
    subprocess.run(
        [program, "--extract", "--make-directories", "--no-absolute-filenames", "--quiet"],
        input=archive(FILES),
        cwd=tmp_path,
        check=True,
    )
    for file in FILES:
        assert (tmp_path / file.name).read_bytes() == file.data
        assert stat.S_IMODE((tmp_path / file.name).stat().st_mode) == file.mode
