# SPDX-License-Identifier: GPL-2.0-or-later
"""A checkout as what it is: somebody else's folder, in which links and pipes can have any name.

No link is followed, and what is neither a folder, a regular file nor a link is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kernel.host import untrusted
from kernel.host.errors import Failed, UserError

ENTRIES = 20_000  # upstream has 1,000
FILE_BYTES = 16 << 20
TOTAL_BYTES = 256 << 20  # upstream's are 2 MB
DEPTH = 20  # folders in folders


@dataclass(frozen=True)
class Entry:
    """One thing of a checkout."""

    name: str  # relative to the checkout
    kind: Literal["folder", "file", "link"]
    mode: int = 0  # of a file: its rights
    leads_to: str = ""  # of a link


def entries(base: Path, tops: Sequence[str]) -> Iterator[Entry]:
    """What stands at these names and below them, folders before what is in them.

    Raises UserError for more than any checkout has.
    """
    count = total = 0
    waiting = [(name, 0) for name in reversed(tops)]
    while waiting:
        name, depth = waiting.pop()
        path = base / name
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        count += 1
        if count > ENTRIES or depth > DEPTH:
            raise UserError(f"{base} is no checkout of blktests: it has too many files or folders")
        if path.is_symlink():
            yield Entry(name, "link", leads_to=str(path.readlink()))
        elif path.is_dir():
            yield Entry(name, "folder")
            inner = sorted((one.name for one in path.iterdir()), reverse=True)
            waiting += [(f"{name}/{one}", depth + 1) for one in inner]
        elif path.is_file():
            total += status.st_size
            if status.st_size > FILE_BYTES or total > TOTAL_BYTES:
                raise UserError(f"{path}: too large for a checkout of blktests")
            yield Entry(name, "file", mode=status.st_mode & 0o777)


def copy(base: Path, tops: Sequence[str], target: Path) -> None:
    """Copies them: files and folders with rights of ours, links as links."""
    for entry in entries(base, tops):
        to = target / entry.name
        if entry.kind == "link":
            to.symlink_to(entry.leads_to)
        elif entry.kind == "folder":
            to.mkdir()
        else:
            untrusted.copy(base, entry.name, to)
            to.chmod(0o755 if entry.mode & 0o111 else 0o644)


def is_folder(base: Path, name: str) -> bool:
    """Whether it is a folder, and not a link to one."""
    return (base / name).is_dir() and not (base / name).is_symlink()


def text(base: Path, name: str) -> str:
    """A file's text; empty when there is no such file of the checkout's own."""
    try:
        return untrusted.read_text(base, name, untrusted.MAKEFILE_BYTES)
    except Failed:
        return ""
