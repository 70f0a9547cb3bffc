# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests to run, from the options of a command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from blockyard.images.console import CONSOLES
from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import DEFAULT
from blockyard.images.machine import vm_config
from blockyard.images.machine.vm_config import EnvKeys
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host.errors import UsageError, unknown
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.modules import manifest
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness import budget
from blockyard.tests.harness.plan import Plan, Scope, portable

SUITES = PROJECT / "tests" / "suites"
BOTH = "both"  # consoles
# values of --suite beside the suites' names
ALL = "all"
SMOKE = "smoke"


@dataclass(frozen=True)
class Selection:
    """The tests to run, and how."""

    scope: Scope
    suites: tuple[str, ...]
    expression: str = ""  # pytest's -k
    out_of_tree: tuple[Manifest, ...] = ()  # drivers outside the kernel tree
    seed: int | None = None  # of a random order of the tests; None: their own order
    topology: str = DEFAULT.name  # the scope's as an option: a name, or a file's absolute path
    checkout: str = ""  # the folder of blktests, when the scope has tests of it
    trust_tests: bool = False  # whether modules' own tests run without a sandbox
    arguments: tuple[str, ...] = ()  # the user's for pytest, which then prints its own output

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders of drivers outside the kernel tree, as absolute paths."""
        return tuple(driver.folder for driver in self.out_of_tree)

    @property
    def own_tests(self) -> tuple[Manifest, ...]:
        """The drivers whose own tests, in the driver's folder, are selected."""
        return tuple(
            driver for driver in self.out_of_tree if Path(driver.folder).name in self.suites
        )

    def plan(self, env: EnvKeys | None = None) -> Plan:
        """The plan of a run; without an environment it is enough to list the tests."""
        return Plan(scope=self.scope, manifests=portable(self.out_of_tree), env=env)


@dataclass(frozen=True)
class SubRun:
    """Options of a run that is a part of a study: it prints nothing, and may end early.

    Tests with a known failure do not run: they show nothing, and many of them wait for a timeout.
    """

    directory: Path  # for its record, made by the caller
    only: frozenset[tuple[str, str]] | None = None  # keys of the tests to run; None: all
    stop: bool = False  # after the first bad test


def parse_names(kind: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated option; all known names when it is empty.

    Raises UsageError for an unknown name.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if text and not names:
        raise UsageError(f"no {kind} in {text!r}")
    return names or tuple(known)


def suites(folders: Sequence[str] = ()) -> dict[str, Path]:
    """All suites: name → folder of test files. Drivers' folders with own tests come last.

    Raises UsageError when the name of such a folder is taken.
    """
    by_name: dict[str, Path] = {}
    for folder in (*sorted(SUITES.glob("*/")), *map(Path, folders)):
        if not any(folder.glob("test_*.py")):
            continue
        if folder.name in (*by_name, ALL, SMOKE):
            raise UsageError(
                f"the tests in {folder} cannot be selected: {folder.name!r} is another suite",
                hint="rename the folder",
            )
        by_name[folder.name] = folder
    return by_name


def select(
    driver: str = "",
    console: str = "",
    suite: str = "",
    expression: str = "",
    outside: Sequence[Manifest] = (),
    hardware: str = DEFAULT.name,
    start: str = "boot",
    spend: budget.Name = "default",
    seed: str = "",
) -> Selection:
    """The selection for these options; an empty option selects all. Raises UsageError.

    suite: names, `all` and `smoke`; `smoke` limits the named suites, or all, to their smoke tests.

    outside: drivers outside the kernel tree. If there are any, an empty `driver` selects these,
    else the drivers in Linux; see `with_carried` for the drivers of other trees.
    """
    for path in (str(PROJECT), str(settings().results_dir), *(entry.folder for entry in outside)):
        _check_text(path)
    names = tuple(entry.name for entry in outside)
    known = (*names, *manifest.names())
    of_linux = tuple(name for name in manifest.names() if not manifest.load(name).available_from)
    known_suites = suites([entry.folder for entry in outside])
    named = set(parse_names("suite", suite, (*known_suites, ALL, SMOKE)) if suite else ())
    every = ALL in named or not named - {SMOKE}
    scope = Scope(
        drivers=parse_names("driver", driver, known) if driver else names or of_linux,
        consoles=CONSOLES if console == BOTH else parse_names("console", console, CONSOLES),
        topology=topologies.load(hardware),
        start=vm_config.start_named(start),
        budget=spend,
        smoke=SMOKE in named,
    )
    return Selection(
        scope,
        tuple(name for name in known_suites if every or name in named),
        expression,
        tuple(outside),
        _seed(seed),
        str(topologies.user_file(hardware) or hardware),
    )


def _check_text(path: str) -> None:
    """Raises UsageError for a path that is not UTF-8, which records and messages to workers are."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise UsageError(
            f"the path {shown} is not UTF-8: tests cannot be run from there",
            hint="rename the folder, or use another one",
        ) from None


def trusting(selected: Selection, *, trust: bool) -> Selection:
    """The selection with or without --trust-tests; prints which tests are trusted."""
    own = [driver.folder for driver in selected.own_tests]
    if not trust or not own:
        return selected
    note(f"--trust-tests: the tests in {', '.join(own)} run without a sandbox")
    return replace(selected, trust_tests=True)


def with_arguments(selected: Selection, words: Sequence[str], *, json: bool = False) -> Selection:
    """The selection with arguments for pytest; raises UsageError for those that we handle."""
    if not words:
        return selected
    if json:
        raise UsageError(
            "--json and options for pytest exclude each other: pytest prints its own output"
        )
    for word in words:
        if word.startswith(("-n", "--numprocesses", "--dist", "--tx")):
            raise UsageError(
                f"pytest's {word} cannot be used here", hint="--guests N runs N guests at a time"
            )
        if word in ("--collect-only", "--co"):
            raise UsageError(f"pytest's {word} cannot be used here", hint="--list lists the tests")
    if selected.own_tests and not selected.trust_tests:
        raise UsageError(
            f"the tests in {selected.own_tests[0].folder} run in a sandbox, without arguments for "
            "pytest",
            hint="read them, and add --trust-tests; or run plain pytest there (docs/pytest.md)",
        )
    return replace(selected, arguments=tuple(words))


def budget_named(*, quick: bool, long: bool) -> budget.Name:
    """The budget that two options name."""
    if quick and long:
        raise UsageError("--quick and --long exclude each other")
    return "quick" if quick else "long" if long else "default"


def _seed(text: str) -> int | None:
    if text and not text.isdecimal():
        raise UsageError(f"invalid --seed {text!r}: expected a whole number, 0 or more")
    return int(text) if text else None


def with_carried(selected: Selection, kernel: Kernel) -> Selection:
    """The selection with the drivers of this kernel that Linux does not have."""
    carried = [
        name
        for name in manifest.names()
        if manifest.load(name).available_from and not manifest.load(name).missing_from(kernel)
    ]
    drivers = tuple(dict.fromkeys((*selected.scope.drivers, *carried)))
    return replace(selected, scope=msgspec.structs.replace(selected.scope, drivers=drivers))
