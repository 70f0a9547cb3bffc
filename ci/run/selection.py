# SPDX-License-Identifier: GPL-2.0-or-later
"""What of the suites to run, from what a user typed."""

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
# words for --suite beside the suites' names
ALL = "all"
SMOKE = "smoke"


@dataclass(frozen=True)
class Selection:
    """What of the suites to run."""

    scope: Scope
    suites: tuple[str, ...]
    expression: str = ""  # pytest's -k
    out_of_tree: tuple[Manifest, ...] = ()  # drivers outside the kernel tree
    seed: int | None = None  # for another order of the tests
    checkout: str = ""  # the folder of blktests, when the scope has tests of it
    trust_tests: bool = False  # whether modules' own tests run without a sandbox
    arguments: tuple[str, ...] = ()  # of the user for pytest, which then prints its own output

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
    """A run that is a part of something larger: it prints nothing, and may end early.

    Known failures are left out: they say nothing, and many of them wait for a time-out.
    """

    directory: Path  # of its record, made by the caller
    only: frozenset[tuple[str, str]] | None = None  # these tests, by their keys; None: all
    stop: bool = False  # at the first bad test


def parse_names(kind: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated option (all when it is empty), each one known."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if text and not names:
        raise UsageError(f"no {kind} in {text!r}")
    return names or tuple(known)


def suites(folders: Sequence[str] = ()) -> dict[str, Path]:
    """The suites there are: name → folder of test files. Drivers' own folders come last.

    Raises UsageError for one of those that is called as another is.
    """
    found: dict[str, Path] = {}
    for place in (*sorted(SUITES.glob("*/")), *map(Path, folders)):
        if not any(place.glob("test_*.py")):
            continue
        if place.name in (*found, ALL, SMOKE):
            raise UsageError(f"{place} has tests, and another suite is called {place.name!r}")
        found[place.name] = place
    return found


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
    """Checks what a user typed; an empty choice means all.

    suite: names, and the words `all` and `smoke`: of the named suites, or of all, the smoke tests.

    outside: drivers outside the kernel tree; when there are any, they are all drivers unless the
    user names others. Else all are those of Linux; see `with_carried` for the rest.
    """
    for place in (str(PROJECT), str(settings().results_dir), *(one.folder for one in outside)):
        _check_text(place)
    names = tuple(one.name for one in outside)
    known = (*names, *manifest.names())
    of_linux = tuple(name for name in manifest.names() if not manifest.load(name).available_from)
    there = suites([one.folder for one in outside])
    asked = set(parse_names("suite", suite, (*there, ALL, SMOKE)) if suite else ())
    scope = Scope(
        drivers=parse_names("driver", driver, known) if driver else names or of_linux,
        consoles=CONSOLES if console == BOTH else parse_names("console", console, CONSOLES),
        topology=topologies.load(hardware),
        start=vm_config.start_named(start),
        budget=spend,
        smoke=SMOKE in asked,
    )
    return Selection(
        scope,
        tuple(one for one in there if one in asked or ALL in asked or not asked - {SMOKE}),
        expression,
        tuple(outside),
        _seed(seed),
    )


def _check_text(place: str) -> None:
    """Records and what pytest's workers are sent are UTF-8."""
    try:
        place.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(place).decode(errors="backslashreplace")
        raise UsageError(
            f"the path {shown} is not UTF-8: tests cannot be run from there",
            hint="rename the folder, or use another one",
        ) from None


def trusting(wanted: Selection, *, trust: bool) -> Selection:
    """The selection with --trust-tests or without; says which tests are trusted."""
    own = [driver.folder for driver in wanted.own_tests]
    if not trust or not own:
        return wanted
    note(f"--trust-tests: the tests in {', '.join(own)} run without a sandbox")
    return replace(wanted, trust_tests=True)


def with_arguments(wanted: Selection, words: Sequence[str], *, json: bool = False) -> Selection:
    """The selection with arguments for pytest; raises UsageError for what they cannot be."""
    if not words:
        return wanted
    if json:
        raise UsageError("--json and options for pytest, which prints its own, exclude each other")
    for word in words:
        if word.startswith(("-n", "--numprocesses", "--dist", "--tx")):
            raise UsageError(
                f"pytest's {word} is not taken here", hint="--guests N runs N guests side by side"
            )
        if word in ("--collect-only", "--co"):
            raise UsageError(f"pytest's {word} is not taken here", hint="--list lists the tests")
    if wanted.own_tests and not wanted.trust_tests:
        raise UsageError(
            f"the tests in {wanted.own_tests[0].folder} run in a sandbox, where pytest takes no "
            "arguments",
            hint="read them, and add --trust-tests; or run plain pytest there (docs/pytest.md)",
        )
    return replace(wanted, arguments=tuple(words))


def budget_named(*, quick: bool, long: bool) -> budget.Name:
    """The budget that two options name."""
    if quick and long:
        raise UsageError("--quick and --long exclude each other")
    return "quick" if quick else "long" if long else "default"


def _seed(text: str) -> int | None:
    if text and not text.isdecimal():
        raise UsageError(f"--seed takes a number, not {text!r}")
    return int(text) if text else None


def with_carried(wanted: Selection, kernel: Kernel) -> Selection:
    """The selection with the drivers that are not in Linux but in this kernel."""
    carried = [
        name
        for name in manifest.names()
        if manifest.load(name).available_from and not manifest.load(name).missing_from(kernel)
    ]
    drivers = tuple(dict.fromkeys((*wanted.scope.drivers, *carried)))
    return replace(wanted, scope=msgspec.structs.replace(wanted.scope, drivers=drivers))
