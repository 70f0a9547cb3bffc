# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's checkout of upstream blktests: which tests it has, and which of them fit a driver.

Its files are read here and never run; upstream's own ``check`` runs them in the guest. Whether a
test takes a disk or uses null_blk is read from the text of the test and of its group's ``rc`` file.
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
FOLDERS = ("common", "src", "tests")  # packed for guests, besides `check`
# Names become part of scripts in the guest and of file names on the host.
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

    def select(self, names: Sequence[str]) -> tuple[UpstreamTest, ...]:
        """Return the tests that are named, singly or by group.

        ``-x NAME`` excludes, as in upstream. Without names: all tests except those of the group
        `meta`, with which upstream tests itself. Raises UsageError for an unknown name or when no
        test is left.
        """
        groups = dict.fromkeys(test.group for test in self.tests)
        known = [*groups, *(test.name for test in self.tests)]
        selected, excluded = _split(names)
        for name in (*selected, *excluded):
            if name.startswith("-"):
                raise UsageError(
                    f"unknown option {name!r} of blktests",
                    hint="after -- name tests and groups, or exclude some with -x NAME",
                )
            if name not in known:
                raise _nearest("test or group of blktests", name, known)
        selected = selected or [name for name in groups if name != "meta"]
        tests = tuple(
            test
            for test in self.tests
            if {test.name, test.group} & set(selected)
            and not {test.name, test.group} & set(excluded)
        )
        if not tests:
            raise UsageError(
                "no test of blktests is left", hint="-x excludes every test that was named"
            )
        return tests


def _split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split into selected and excluded names; -x NAME, -xNAME and --exclude=NAME exclude."""
    selected: list[str] = []
    excluded: list[str] = []
    rest = iter(names)
    for word in rest:
        if word in ("-x", "--exclude"):
            if (name := next(rest, "")) == "":
                raise UsageError(f"{word} needs a test or a group of blktests")
            excluded.append(_plain(name))
        elif match := _EXCLUDE.fullmatch(word):
            excluded.append(_plain(match[1]))
        else:
            selected.append(_plain(word))
    return selected, excluded


def _plain(name: str) -> str:
    return name.strip("/").removeprefix("tests/")


def _nearest(kind: str, name: str, known: Sequence[str]) -> UsageError:
    """Like unknown(), but without a near name the hint lists only the groups."""
    near = unknown(kind, name, known)
    if not near.hint.startswith("known: "):
        return near
    return unknown(kind, name, [group for group in known if "/" not in group])


def read(folder: Path) -> Checkout:
    """Read a folder; raises UsageError if it is not a checkout of blktests."""
    try:
        tests = tuple(_tests(folder.resolve()))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    complete = is_file(folder, "check") and all(tree.is_folder(folder, name) for name in FOLDERS)
    if not tests or not complete:
        raise UsageError(
            f"{folder} is not a checkout of blktests: check, common, src or tests is missing",
            hint=f"run git clone {URL} and give the folder with --tree",
        )
    return Checkout(folder.resolve(), tests)


def _tests(folder: Path) -> Iterator[UpstreamTest]:
    if not tree.is_folder(folder, "tests"):
        return
    for path in sorted(folder.glob("tests/*/[0-9][0-9][0-9]")):
        group, name = path.parent.name, str(path.relative_to(folder))
        is_test = _GROUP.fullmatch(group) and _NUMBER.fullmatch(path.name)
        if not is_test or not is_file(folder, name):
            continue
        text, shared = tree.text(folder, name), tree.text(folder, f"tests/{group}/rc")
        yield UpstreamTest(
            f"{group}/{path.name}",
            on_a_disk=bool(_ON_A_DISK.search(text)),
            on_null_blk=bool(_ON_NULL_BLK.search(text) or _ON_NULL_BLK.search(shared)),
        )
