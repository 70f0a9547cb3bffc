# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a patch series from the path that a user named.

A series is a file (a thread of public-inbox, the output of `b4 am`, `git format-patch` or
`git log -p`, a mail, a diff; also compressed), a stream from the shell, or a folder: one with
quilt's file `series`, a maildir, or files like those. Nothing is applied here:

    path --files--> bytes --mail--> Mail --unified--> Item --thread--> Series
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from blockyard.kernel.host import packed, untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.untrusted import SERIES_BYTES
from blockyard.kernel.sources import thread
from blockyard.kernel.sources.items import Item, items_of, natural
from blockyard.kernel.sources.mail import mails
from blockyard.kernel.sources.patches import Omitted, Series

WHAT = "the patch series"
FILES = 5000  # limit for a folder
_PACKED = r"(\.(gz|xz|zst|bz2))?"
_NAMES = re.compile(
    rf".+\.(patch|diff|eml|mbox|mbx|mail|msg)(\.txt)?{_PACKED}|(v\d+-)?\d+(-.*)?|patch-.*", re.I
)
_NO_NAMES = re.compile(
    r"\..*|.*(~|\.orig|\.rej|\.bak|\.swp|\.cover)|.*\.(tar|tgz|zip)(\..*)?", re.I
)
_ARCHIVES = {b"PK\x03\x04": "a zip archive", b"# v2 git bundle": "a git bundle",
             b"# v3 git bundle": "a git bundle"}  # fmt: skip
_STRIP = re.compile(r"-p(\d)")


def read(path: Path, version: int | None = None) -> Series:
    """The series at a path; version: the version to take, None for the newest.

    Raises UsageError when there is no patch, and for an incomplete series: a missing number, a
    damaged or binary diff, a missing version.
    """
    if not path.exists():
        raise UsageError(f"no such patch series: {path}")
    if path.is_dir():
        return _of_folder(path, version)
    return _of_file(path, untrusted.read_input(path, WHAT, SERIES_BYTES), version)


@lru_cache(maxsize=4)  # the series is read when options are checked, and again to apply it
def _of_file(path: Path, data: bytes, version: int | None) -> Series:
    name = _title(path)
    with step(f"reading {WHAT} {path}"):
        items = items_of(mails(_plain(data, name), str(path)), name)
        return thread.series(items, str(path), version, alone=True)


def _title(path: Path) -> str:
    return str(path) if str(path).startswith(("/dev/", "/proc/")) else path.name


def _plain(data: bytes, name: str) -> bytes:
    """The contents of a file, unpacked, with UTF-16 decoded. Raises UsageError for an archive."""
    data = packed.unpacked(data, name, SERIES_BYTES)
    kind = next((kind for magic, kind in _ARCHIVES.items() if data.startswith(magic)), "")
    if data[257:262] == b"ustar":
        kind = "a tar archive"
    if kind == "a git bundle":
        raise UsageError(
            f"{name} is a git bundle, not a patch series",
            hint="fetch it into a repository and use --kernel REPOSITORY#REF, "
            "or make patches from it with git format-patch",
        )
    if kind:
        raise UsageError(f"{name} is {kind}", hint="unpack it and name the folder")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # PowerShell's redirection
        return data.decode("utf-16", errors="replace").encode(errors="replace")
    return data.removeprefix(b"\xef\xbb\xbf")


def _of_folder(folder: Path, version: int | None) -> Series:
    files = _Folder(folder)
    if (folder / "series").is_file():
        return _quilt(files, version)
    if all((folder / name).is_dir() for name in ("cur", "new")):
        names = files.below("cur") + files.below("new")
        return thread.series(files.items(names), str(folder), version)
    all_names = files.below("")
    names = [name for name in all_names if _NAMES.fullmatch(name)] or all_names
    others = [name for name in all_names if name not in set(names)]
    why = "not named like patches (*.patch, *.diff, *.eml, *.mbox, 0001-...)"
    omitted = [Omitted(", ".join(others[:5] + ["..."] * (len(others) > 5)), why)] if others else []
    return thread.series(files.items(names), str(folder), version, omitted)


@dataclass
class _Folder:
    """A folder of patches; its files are opened with `untrusted.open_regular`."""

    path: Path
    size: int = 0  # bytes read so far

    def below(self, folder: str) -> list[str]:
        """The names of the files in a folder below, sorted so that 2 comes before 10."""
        try:
            names = [
                (f"{folder}/{path.name}" if folder else path.name)
                for path in (self.path / folder).iterdir()
                if not path.is_dir() and not _NO_NAMES.fullmatch(path.name)
            ]
        except OSError as error:
            raise UsageError(f"cannot read the folder {self.path}: {error.strerror}") from None
        if len(names) > FILES:
            raise UsageError(f"{self.path} has more than {FILES} files: is it the right folder?")
        return sorted(names, key=natural)

    def read(self, name: str) -> bytes:
        try:
            with untrusted.open_regular(self.path, name) as file:
                data = file.read(SERIES_BYTES - self.size + 1)
        except (Failure, OSError, ValueError) as error:
            raise UsageError(
                f"cannot read {WHAT} {self.path}: {error}",
                hint="links, pipes and devices are not read: copy the file itself there",
            ) from None
        self.size += len(data)
        if self.size > SERIES_BYTES:
            raise UsageError(f"{self.path} is larger than {SERIES_BYTES >> 20} MiB")
        return _plain(data, name)

    def items(self, names: list[str]) -> list[Item]:
        """The mails and diffs of some files."""
        folder = self.path
        return [
            item
            for name in names
            for item in items_of(mails(self.read(name), f"{folder / name}"), name)
        ]


def _quilt(files: _Folder, version: int | None) -> Series:
    """The patches that quilt's file `series` lists, in its order."""
    items: list[Item] = []
    omitted: list[Omitted] = []
    for name, strip in _listed(files):
        of_file = files.items([name])
        patches = [item for item in of_file if item.is_patch]
        for patch in patches:
            patch.strip = strip
        omitted += [
            Omitted(item.title, "the cover letter", item.mail.author)
            for item in of_file
            if item.subject.number == 0
        ]
        if not patches:
            raise UsageError(f"{files.path / name} has no patches")
        items += patches
    if not items:
        raise UsageError(f"{files.path} has no patches: its file `series` lists none")
    return thread.as_listed(items, str(files.path), omitted)


def _listed(files: _Folder) -> Iterator[tuple[str, int | None]]:
    """File name and number of folders to strip from each line of `series`."""
    order = files.path / "series"
    text = files.read("series").decode(errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        name, *options = words
        strip: int | None = None
        for option in options:
            if not (match := _STRIP.fullmatch(option)):
                hint = "reverse the patch (interdiff -q FILE /dev/null)" if option == "-R" else ""
                raise UsageError(f"{order}:{number}: unsupported option {option}", hint=hint)
            strip = int(match[1])
        if not untrusted.is_file(files.path, name):
            raise UsageError(f"{order} names {name}, which is not a regular file in {files.path}")
        yield name, strip
