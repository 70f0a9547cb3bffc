# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures that are known: `tests/known_failures.toml`, and the same file in a driver's folder.

What a driver's folder says holds for that driver alone: it comes from whoever wrote the driver.

A known failure runs like any test. It is `xfail` when it fails as expected, and `xpass`, which the
report points out, when it does not. What is known holds for a range of kernels, so that it ends by
itself. Only the failure that is known is expected: a test that is to fail and crashes has crashed.

pytest's `xfail(raises=, strict=)` is not used for it. It judges the call of a test, and here the
teardown judges too: the kernel log and the state of the guest. It stands in the test, which runs on
many kernels, drivers and variants, and knows no outcomes such as a crash or a lost test.
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
    """One entry."""

    test: str  # its id, such as configfs/size; * and ? stand for what they do in a shell
    reason: str
    driver: str = "*"
    kernels: str = ""  # a range, see kernel.versions; empty: all of them
    variant: str = "*"
    topology: str = "*"
    outcomes: tuple[Expected, ...] = ("fail",)  # what it is without the entry
    splat: bool = False  # whether the kernel complains
    link: str = ""  # where more is told: a commit, a thread

    def verdict(self, outcome: Outcome, *, splat: bool = False) -> Outcome:
        """What becomes of a test's outcome; splat: the kernel complained."""
        if outcome in self.outcomes and self.splat >= splat:
            return "xfail"
        return "xpass" if outcome == "pass" else outcome

    def __str__(self) -> str:
        return f"{self.reason} ({self.link})" if self.link else self.reason


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    failure: tuple[KnownFailure, ...] = ()


def read(path: Path) -> tuple[KnownFailure, ...]:
    """The entries of a file; UsageError for one that says what cannot be."""
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
    """What is known of a run's kernel."""

    entries: tuple[KnownFailure, ...]
    release: str  # uname -r
    variant: str

    def find(self, test: str, driver: str, topology: str) -> KnownFailure | None:
        """The entry for a test of a driver, if there is one."""
        for entry in self.entries:
            patterns = (entry.test, entry.driver, entry.variant, entry.topology)
            names = (test, driver, self.variant, topology)
            if all(map(fnmatchcase, names, patterns)) and self._holds(entry):
                return entry
        return None

    def _holds(self, entry: KnownFailure) -> bool:
        return versions.within(self.release, entry.kernels)

    def obsolete(self) -> list[str]:
        """The entries that hold for no kernel there is, in words: to be removed."""
        releases = [self.release, *(name for name in catalog.catalog() if name[0].isdigit())]
        return [
            f"{entry.test} [{entry.driver}]: no known kernel is in {entry.kernels!r}"
            for entry in self.entries
            if not any(versions.within(one, entry.kernels) for one in releases)
        ]


def of(folders: Sequence[str], release: str, variant: str) -> Known:
    """Our entries and those in drivers' own folders."""
    entries = [*read(PROJECT / "tests" / FILE)]
    for folder in map(Path, folders):
        entries += _of_driver(folder)
    return Known(tuple(entries), release, variant)


def check(folders: Sequence[str]) -> None:
    """Raises UsageError for a folder whose file `of` would not take."""
    for folder in folders:
        list(_of_driver(Path(folder)))


def _of_driver(folder: Path) -> Iterable[KnownFailure]:
    """The entries in a driver's folder, each for this driver."""
    path = folder / FILE
    if not os.path.lexists(path):
        return
    driver = manifest.name_of(folder)
    for entry in read(path):
        if not fnmatchcase(driver, entry.driver):
            raise UsageError(
                f"{path}: driver = {entry.driver!r}: what a driver's folder says is for the "
                f"driver itself, {driver}"
            )
        yield msgspec.structs.replace(entry, driver=glob.escape(driver))
