# SPDX-License-Identifier: GPL-2.0-or-later
"""Files in folders that what we build can write to: source trees and output trees.

A makefile in the sandbox reaches nothing else of the host, but it can leave links, pipes and
devices of any name. None is followed here: a file is a regular one, in real folders, below the
folder that is named, and of a size that a file of its kind can have.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from kernel.host.errors import Failed

TEXT_BYTES = 64 << 20  # no .config, makefile or list of modules is a tenth as long


def opened(base: Path, name: str) -> BinaryIO:
    """A file below `base`, to read. Raises Failed when there is none, or it leads elsewhere."""
    *folders, last = _parts(name)
    with contextlib.ExitStack() as stack:
        place = None
        for folder in (str(base), *folders):
            # the base is ours, and may be reached through a link
            how = os.O_RDONLY | os.O_DIRECTORY | (os.O_NOFOLLOW if place is not None else 0)
            place = _open(folder, how, place, name)
            stack.callback(os.close, place)
        file = _open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, place, name)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Failed(f"{name} is no regular file")
    return os.fdopen(file, "rb")


def _parts(name: str) -> tuple[str, ...]:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Failed(f"{name!r} is no name of a file below a folder")
    return path.parts


def _open(name: str, how: int, place: int | None, whole: str) -> int:
    try:
        return os.open(name, how | os.O_CLOEXEC, dir_fd=place)
    except OSError as error:
        raise Failed(f"{whole} is not there as a file of its own ({error.strerror})") from None


def read(base: Path, name: str) -> bytes:
    """The contents of a file that is text; raises what `opened` does."""
    with opened(base, name) as file:
        data = file.read(TEXT_BYTES + 1)
    if len(data) > TEXT_BYTES:
        raise Failed(f"{name} is larger than {TEXT_BYTES >> 20} MiB")
    return data


def read_text(base: Path, name: str) -> str:
    """The same as text; what is no UTF-8 is replaced."""
    return read(base, name).decode(errors="replace")


def is_file(base: Path, name: str) -> bool:
    """Whether `opened` opens it."""
    try:
        opened(base, name).close()
    except Failed:
        return False
    return True


def copy(base: Path, name: str, target: Path) -> None:
    """Copies a file to one of ours, with its folders; raises what `opened` does, before that."""
    with opened(base, name) as source:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as copied:
            shutil.copyfileobj(source, copied, 1 << 20)


def write(base: Path, name: str, data: bytes) -> None:
    """Writes a file directly in `base`, whole or not at all, in place of whatever has its name."""
    descriptor, made = tempfile.mkstemp(prefix=f"{name}.", dir=base)  # new: opened with O_EXCL
    aside = Path(made)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        aside.chmod(0o644)
        aside.replace(base / name)
    finally:
        aside.unlink(missing_ok=True)
