# SPDX-License-Identifier: GPL-2.0-or-later
"""Known failures: `tests/known_failures.toml`, and a file of this name in a driver's folder.

The file in a driver's folder is about that driver only.

A test with a known failure runs like any other. Its outcome is `xfail` when it fails as the entry
says, and `xpass`, which the report points out, when it passes. Any other failure counts: a test
that is expected to fail and crashes is a `crash`. An entry is for a range of kernels, so it expires
when the bug is fixed.

pytest's `xfail(raises=, strict=)` cannot do this. It is about the call of a test, and here the
teardown can fail it too, because of the kernel log or the guest's state. It is written in the test,
which runs on many kernels, drivers and variants. And it has no outcomes such as a crash.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import msgspec

from blockyard.kernel import catalog, versions
from blockyard.kernel.host import toml, untrusted
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.modules import manifest
from blockyard.tests.harness.outcomes import Outcome

FILE = "known_failures.toml"
Expected = Literal["fail", "crash", "timeout"]  # a test that was lost says nothing


class KnownFailure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the file. `*` and `?` in patterns match as in a shell."""

    test: str  # a pattern of ids, such as configfs/size
    reason: str
    driver: str = "*"
    kernels: str = ""  # a range, see kernel.versions; empty: all
    variant: str = "*"
    topology: str = "*"
    outcomes: tuple[Expected, ...] = ("fail",)  # the expected outcomes
    splat: bool = False  # whether a splat is expected
    link: str = ""  # a commit or a thread with more on it

    def verdict(self, outcome: Outcome, *, splat: bool = False) -> Outcome:
        """The outcome with the entry; outcome: without it; splat: whether there was a splat."""
        if outcome in self.outcomes and self.splat >= splat:
            return "xfail"
        return "xpass" if outcome == "pass" else outcome

    def __str__(self) -> str:
        return f"{self.reason} ({self.link})" if self.link else self.reason


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    failure: tuple[KnownFailure, ...] = ()


def read(path: Path) -> tuple[KnownFailure, ...]:
    """The entries of a file; raises UsageError for an invalid one."""
    try:
        data = untrusted.read(path.parent, path.name, untrusted.TOML_BYTES)
    except Failure as error:
        raise UsageError(f"{path}: {error}") from None
    entries = toml.decode(data, _File, str(path), f"tests/{FILE} is an example").failure
    for entry in entries:
        versions.check_range(entry.kernels, str(path))
    return entries


@dataclass(frozen=True)
class Known:
    """The entries for a run's kernel and variant."""

    entries: tuple[KnownFailure, ...]
    release: str  # uname -r
    variant: str

    def find(self, test: str, driver: str, topology: str) -> KnownFailure | None:
        """The first entry that matches a test of a driver; None without one."""
        for entry in self.entries:
            patterns = (entry.test, entry.driver, entry.variant, entry.topology)
            names = (test, driver, self.variant, topology)
            if all(map(fnmatchcase, names, patterns)) and self._holds(entry):
                return entry
        return None

    def _holds(self, entry: KnownFailure) -> bool:
        return versions.within(self.release, entry.kernels)

    def obsolete(self) -> list[str]:
        """A line for each entry that holds for no kernel of the catalog: it can be removed."""
        releases = [self.release, *(name for name in catalog.catalog() if name[0].isdigit())]
        return [
            f"{entry.test} [{entry.driver}]: no known kernel is in {entry.kernels!r}"
            for entry in self.entries
            if not any(versions.within(release, entry.kernels) for release in releases)
        ]


def of(folders: Sequence[str], release: str, variant: str) -> Known:
    """The entries of tests/known_failures.toml and of the drivers' folders."""
    entries = [*read(PROJECT / "tests" / FILE)]
    for folder in map(Path, folders):
        entries += _of_driver(folder)
    return Known(tuple(entries), release, variant)


def check(folders: Sequence[str]) -> None:
    """Raises UsageError for an invalid file in a driver's folder."""
    for folder in folders:
        list(_of_driver(Path(folder)))


def _of_driver(folder: Path) -> Iterable[KnownFailure]:
    """The entries in a driver's folder, limited to this driver."""
    path = folder / FILE
    if not os.path.lexists(path):
        return
    driver = manifest.name_of(folder)
    for entry in read(path):
        if not fnmatchcase(driver, entry.driver):
            raise UsageError(
                f"{path}: driver = {entry.driver!r}: expected {driver!r}, the driver of this folder"
            )
        yield msgspec.structs.replace(entry, driver=glob.escape(driver))
