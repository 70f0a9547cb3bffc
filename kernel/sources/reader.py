# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a user named to a series of patches.

A series is a file (a thread of public-inbox, what `b4 am` or `git format-patch` write, a mail, a
diff, `git log -p`, each of them also compressed), a stream of the shell's, or a folder: one with
quilt's file `series`, a maildir, or files with such contents. Nothing is applied here:

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
FILES = 5000  # in a folder
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
    """The series at a path; version: of several, None takes the newest.

    Raises UsageError when there is no patch, and for all that cannot be taken whole: a number that
    is missing, a damaged or binary diff, a version that is not there.
    """
    if not path.exists():
        raise UsageError(f"there is no patch series {path}")
    if path.is_dir():
        return _of_folder(path, version)
    return _of_file(path, untrusted.read_input(path, WHAT, SERIES_BYTES), version)


@lru_cache(maxsize=4)  # a choice is checked, and later applied
def _of_file(path: Path, data: bytes, version: int | None) -> Series:
    name = _title(path)
    with step(f"reading {WHAT} {path}"):
        items = items_of(mails(_plain(data, name), str(path)), name)
        return thread.series(items, str(path), version, alone=True)


def _title(path: Path) -> str:
    return str(path) if str(path).startswith(("/dev/", "/proc/")) else path.name


def _plain(data: bytes, name: str) -> bytes:
    """A file's contents, unpacked, in UTF-8. Raises UsageError for an archive."""
    data = packed.unpacked(data, name, SERIES_BYTES)
    kind = next((kind for magic, kind in _ARCHIVES.items() if data.startswith(magic)), "")
    if data[257:262] == b"ustar":
        kind = "a tar archive"
    if kind == "a git bundle":
        raise UsageError(
            f"{name} is a git bundle, not a patch series",
            hint="fetch it into a repository and take --kernel REPOSITORY#REF, "
            "or make patches of it with git format-patch",
        )
    if kind:
        raise UsageError(f"{name} is {kind}", hint="unpack it, and name the folder")
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
    there = files.below("")
    names = [name for name in there if _NAMES.fullmatch(name)] or there
    others = [name for name in there if name not in set(names)]
    why = "not named as patches are (*.patch, *.diff, *.eml, *.mbox, 0001-...)"
    omitted = [Omitted(", ".join(others[:5] + ["..."] * (len(others) > 5)), why)] if others else []
    return thread.series(files.items(names), str(folder), version, omitted)


@dataclass
class _Folder:
    """A folder of patches; what is in it is read as files from outside are."""

    path: Path
    size: int = 0  # bytes read so far

    def below(self, folder: str) -> list[str]:
        """The names of files in a folder of it, in the order that people count."""
        try:
            found = [
                (f"{folder}/{one.name}" if folder else one.name)
                for one in (self.path / folder).iterdir()
                if not one.is_dir() and not _NO_NAMES.fullmatch(one.name)
            ]
        except OSError as error:
            raise UsageError(f"cannot read the folder {self.path}: {error.strerror}") from None
        if len(found) > FILES:
            raise UsageError(f"{self.path} has more than {FILES} files: is it the right folder?")
        return sorted(found, key=natural)

    def read(self, name: str) -> bytes:
        try:
            with untrusted.open_regular(self.path, name) as file:
                data = file.read(SERIES_BYTES - self.size + 1)
        except (Failure, OSError, ValueError) as error:
            raise UsageError(
                f"cannot read {WHAT} {self.path}: {error}",
                hint="links, pipes and devices are not followed: put the file itself there",
            ) from None
        self.size += len(data)
        if self.size > SERIES_BYTES:
            raise UsageError(f"{self.path} is larger than {SERIES_BYTES >> 20} MiB")
        return _plain(data, name)

    def items(self, names: list[str]) -> list[Item]:
        """The mails and diffs of some files."""
        where = self.path
        return [
            one
            for name in names
            for one in items_of(mails(self.read(name), f"{where / name}"), name)
        ]


def _quilt(files: _Folder, version: int | None) -> Series:
    """Patches as quilt's file `series` lists them: those, in that order."""
    items: list[Item] = []
    omitted: list[Omitted] = []
    for name, strip in _listed(files):
        found = files.items([name])
        patches = [one for one in found if one.is_patch]
        for one in patches:
            one.strip = strip
        omitted += [
            Omitted(one.title, "the cover letter", one.mail.author)
            for one in found
            if one.subject.number == 0
        ]
        if not patches:
            raise UsageError(f"{files.path / name} has no patches in it")
        items += patches
    if not items:
        raise UsageError(f"{files.path} has no patches in it: its file `series` lists none")
    return thread.as_listed(items, str(files.path), omitted)


def _listed(files: _Folder) -> Iterator[tuple[str, int | None]]:
    """File and folders to strip of each line of `series`."""
    order = files.path / "series"
    text = files.read("series").decode(errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), start=1):
        words = re.sub(r"(^|\s)#.*", "", line).split()
        if not words:
            continue
        name, *options = words
        strip: int | None = None
        for option in options:
            if not (found := _STRIP.fullmatch(option)):
                hint = (
                    "turn the patch round (interdiff -q FILE /dev/null)" if option == "-R" else ""
                )
                raise UsageError(f"{order}:{number}: {option} is not understood", hint=hint)
            strip = int(found[1])
        if not untrusted.is_file(files.path, name):
            raise UsageError(f"{order} names {name}, which is not a regular file in {files.path}")
        yield name, strip
