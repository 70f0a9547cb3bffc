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
    members_by_name: dict[str, Member] = {}
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
        member_name = name[:-1].decode()
        if member_name == "TRAILER!!!":
            assert at == len(data)
            return members_by_name
        assert member_name not in members_by_name
        members_by_name[member_name] = Member(
            fields[1], fields[2], fields[3], fields[4], fields[5], data[start : start + size]
        )


def test_files_keep_data_and_mode() -> None:
    read_back = members(archive(FILES))
    for file in FILES:
        member = read_back[file.name]
        assert (member.data, member.mode) == (file.data, stat.S_IFREG | file.mode)


def test_each_directory_is_listed_once_before_its_files() -> None:
    read_back = members(archive(FILES))
    directories = [name for name, member in read_back.items() if stat.S_ISDIR(member.mode)]
    assert directories == ["boot", "boot/a", "ssh"]
    names = list(read_back)
    assert names.index("boot") < names.index("boot/a") < names.index("boot/a/one.ko")
    assert all(read_back[name].mode == stat.S_IFDIR | 0o755 for name in directories)


def test_owner_and_time_of_the_host_are_not_stored() -> None:
    for member in members(archive(FILES)).values():
        assert (member.uid, member.gid, member.mtime, member.links) == (0, 0, 0, 1)


def test_same_files_give_the_same_bytes() -> None:
    assert archive(FILES) == archive(list(FILES))


def test_empty_archive() -> None:
    assert members(archive([])) == {}


def test_archives_can_be_joined() -> None:
    """The kernel continues after a trailer at the next multiple of four bytes."""
    first = archive(FILES[:2])
    assert len(first) % 4 == 0
    assert list(members(archive(FILES[2:]))) == ["boot", "boot/a", "boot/a/two.ko"] + [
        "boot/empty",
        "ssh",
        "ssh/host_key",
    ]


def test_cpio_program_reads_the_archive(tmp_path: Path) -> None:
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
