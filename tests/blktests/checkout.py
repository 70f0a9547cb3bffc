# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's checkout of upstream blktests: which tests it has, and which of them fit a driver.

Its files are only read here, never run: what they do is decided in the guest, by upstream's own
``check``. The few facts that are needed before are taken from the text of a test and of its group's
``rc`` file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blockyard.kernel.host.errors import UsageError, unknown
from blockyard.kernel.host.untrusted import is_file
from blockyard.tests.blktests import tree
from blockyard.tests.harness.upstream import UpstreamTest

URL = "https://github.com/linux-blktests/blktests"
FOLDERS = ("common", "src", "tests")  # that a guest gets
# Names become part of scripts in the guest and of file names here.
_GROUP = re.compile(r"[a-z][a-z0-9_-]*")
_NUMBER = re.compile(r"[0-9]{3}")
_EXCLUDE = re.compile(r"(?:-x|--exclude=)(.+)")
_ON_A_DISK = re.compile(r"^[ \t]*(function[ \t]+)?test_device(_array)?[ \t]*\(\)", re.MULTILINE)
_ON_NULL_BLK = re.compile(r"\bnull_blk\b|\bnullb\b")


@dataclass(frozen=True)
class Checkout:
    """A folder that looks like upstream blktests."""

    folder: Path
    tests: tuple[UpstreamTest, ...]

    def chosen(self, names: Sequence[str]) -> tuple[UpstreamTest, ...]:
        """The tests with these names, of groups or single ones (all but upstream's tests of itself,
        `meta`, when there are none), less those behind ``-x``, which is upstream's own option.

        Raises UsageError for a name that is not there.
        """
        groups = dict.fromkeys(test.group for test in self.tests)
        known = [*groups, *(test.name for test in self.tests)]
        wanted, excluded = _split(names)
        for name in (*wanted, *excluded):
            if name.startswith("-"):
                raise UsageError(
                    f"unknown option {name!r} of blktests",
                    hint="behind -- stand names of tests and groups, and -x NAME to exclude some",
                )
            if name not in known:
                raise _nearest("test or group of blktests", name, known)
        taken = wanted or [name for name in groups if name != "meta"]
        tests = tuple(
            test
            for test in self.tests
            if {test.name, test.group} & set(taken) and not {test.name, test.group} & set(excluded)
        )
        if not tests:
            raise UsageError("no test of blktests is left", hint="-x excludes all that were named")
        return tests


def _split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that are wanted, and those that are excluded: -x NAME, -xNAME, --exclude=NAME."""
    wanted: list[str] = []
    excluded: list[str] = []
    words = iter(names)
    for word in words:
        if word in ("-x", "--exclude"):
            if (name := next(words, "")) == "":
                raise UsageError(f"{word} needs a test or a group of blktests")
            excluded.append(_plain(name))
        elif match := _EXCLUDE.fullmatch(word):
            excluded.append(_plain(match[1]))
        else:
            wanted.append(_plain(word))
    return wanted, excluded


def _plain(name: str) -> str:
    return name.strip("/").removeprefix("tests/")


def _nearest(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """As `unknown`, but where no name is near it names no more than the groups."""
    near = unknown(kind, name, known)
    if not near.hint.startswith("known: "):
        return near
    return unknown(kind, name, [one for one in known if "/" not in one])


def read(folder: Path) -> Checkout:
    """What stands in a folder; raises UsageError for one that is not a checkout of blktests."""
    try:
        tests = tuple(_tests(folder.resolve()))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    there = is_file(folder, "check") and all(tree.is_folder(folder, one) for one in FOLDERS)
    if not tests or not there:
        raise UsageError(
            f"{folder} is not a checkout of blktests: it has no check, common, src or tests",
            hint=f"git clone {URL}, and name the folder with --tree",
        )
    return Checkout(folder.resolve(), tests)


def _tests(folder: Path) -> Iterator[UpstreamTest]:
    if not tree.is_folder(folder, "tests"):
        return
    for path in sorted(folder.glob("tests/*/[0-9][0-9][0-9]")):
        group, name = path.parent.name, str(path.relative_to(folder))
        fits = _GROUP.fullmatch(group) and _NUMBER.fullmatch(path.name)
        if not fits or not is_file(folder, name):
            continue
        text, shared = tree.text(folder, name), tree.text(folder, f"tests/{group}/rc")
        yield UpstreamTest(
            f"{group}/{path.name}",
            on_a_disk=bool(_ON_A_DISK.search(text)),
            on_null_blk=bool(_ON_NULL_BLK.search(text) or _ON_NULL_BLK.search(shared)),
        )
