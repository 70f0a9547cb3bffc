# SPDX-License-Identifier: GPL-2.0-or-later
"""Read an untrusted checkout: any name may be a link, a pipe or a device.

No link is followed; everything except folders, regular files and links is omitted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path

from blockyard.kernel.host import untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.untrusted import Entry, FolderLimits

FILE_BYTES = 16 << 20
# for each folder; all of upstream has 1,000 files and 2 MB
LIMITS = FolderLimits(files=20_000, size=256 << 20, depth=20)


def entries(base: Path, tops: Collection[str]) -> Iterator[Entry]:
    """The files and links with these names, and those below folders with these names.

    Raises UsageError above the limits, which are far above any real checkout.
    """
    folders = [name for name in tops if is_folder(base, name)]
    files = [name for name in tops if name not in folders]
    for entry in chain(
        untrusted.regular_files(base, lambda name: name not in files, LIMITS),
        *(untrusted.regular_files(base, _none, LIMITS, name) for name in folders),
    ):
        if entry.size > FILE_BYTES:
            raise UsageError(f"{base / entry.name} is larger than {FILE_BYTES >> 20} MiB")
        yield entry


def _none(_name: str) -> bool:
    return False


def copy(base: Path, tops: Collection[str], target: Path) -> None:
    """Copy them with modes 755 and 644; links are copied as links."""
    for entry in entries(base, tops):
        to = target / entry.name
        if entry.link:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.symlink_to(entry.link)
        else:
            untrusted.copy(base, entry.name, to, FILE_BYTES)
            to.chmod(0o755 if entry.executable else 0o644)


def is_folder(base: Path, name: str) -> bool:
    """Whether it is a folder and not a link to one."""
    return (base / name).is_dir() and not (base / name).is_symlink()


def text(base: Path, name: str) -> str:
    """The text of a file; empty if it is missing, a link or too large."""
    try:
        return untrusted.read_text(base, name, untrusted.MAKEFILE_BYTES)
    except Failure:
        return ""
