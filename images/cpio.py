# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes cpio archives in the format that the kernel unpacks as an initramfs.

The format is "newc", described in Documentation/driver-api/early-userspace/buffer-format.rst of
the kernel. Archives can be joined end to end; a later file replaces an earlier one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """A regular file of the archive. Its parent directories are added as needed."""

    name: str  # without a leading slash
    data: bytes
    mode: int = 0o644


def archive(files: Iterable[File]) -> bytes:
    """The bytes of an archive of these files, all owned by root, with time stamp 0."""
    parts: list[bytes] = []
    folders: set[str] = set()
    for file in files:
        names = file.name.split("/")[:-1]
        for depth in range(1, len(names) + 1):
            folder = "/".join(names[:depth])
            if folder not in folders:
                folders.add(folder)
                parts.append(_member(folder, stat.S_IFDIR | 0o755, b""))
        parts.append(_member(file.name, stat.S_IFREG | file.mode, file.data))
    parts.append(_member("TRAILER!!!", 0, b""))
    return b"".join(parts)


def _member(name: str, mode: int, data: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links = 1
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor/minor, rdevmajor/minor, namesize, check
    fields = (0, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + encoded) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
