# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of a selection, and how pytest is asked for them.

Our suites are collected in this process, a module's own test files in an enclosure
(module_tests.runner): a path of theirs never reaches this pytest, nor does an option of the user's
own pytest runs.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import selection
from blockyard.ci.run.case_id import UPSTREAM, CaseId, test_id
from blockyard.ci.run.module_tests import runner
from blockyard.ci.run.module_tests.runner import SUITES_INI, Suite, seeded
from blockyard.ci.run.selection import Selection
from blockyard.kernel.host import environment
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import PROJECT, settings
from blockyard.modules.manifest import Manifest
from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.plan import Plan, portable
from blockyard.tests.harness.plan import read as read_plan
from blockyard.tests.harness.plan import write as write_plan
from blockyard.tests.harness.portions import PORTION

_PYTEST_SIGNS = ("[", "::")  # what follows them in an argument is no part of a path


def portion_count(names: Mapping[str, CaseId]) -> int:
    """How many guests the tests can use side by side; see tests/harness/portions.py."""
    counts = Counter(name.slot for name in names.values())
    return sum(-(-count // PORTION) for count in counts.values())


class Interruptible:
    """A pytest plugin that tells the user's Ctrl-C from pytest's own reasons to stop."""

    interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """pytest's hook for both."""
        self.interrupted = excinfo.type is KeyboardInterrupt


# eq=False: where a suite has a conftest.py, pytest puts its plugins into a set
@dataclass(eq=False)
class _Collection(Interruptible):
    """A pytest plugin that keeps what was collected: pytest's id → ours."""

    names: dict[str, CaseId] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All tests that were selected, in their order."""
        self.names = {item.nodeid: test_id(item) for item in session.items}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A suite that cannot be read, or skips itself, is never taken for an empty one."""
        if not report.passed:
            self.problems.append(str(report.longrepr))

    def pytest_internalerror(self, excrepr: object) -> None:
        """A defect in pytest, a plugin or a conftest.py."""
        self.problems.append(str(excrepr).splitlines()[-1])  # pytest has printed the rest


def trusted(wanted: Selection) -> list[str]:
    """The places of the selected suites that run in this process, as pytest is told of them.

    Relative to the checkout, whose own path may have characters that pytest reads as something
    else. Raises UsageError for a module's folder that has such ones.
    """
    if wanted.scope.upstream:
        return [_relative(UPSTREAM)]
    places = selection.suites(wanted.folders)
    own = [suite.folder for suite in own_suites(wanted, wanted.plan())]
    return [_relative(places[suite]) for suite in wanted.suites if places[suite] not in own]


def _relative(place: Path) -> str:
    if place.is_relative_to(PROJECT):
        return str(place.relative_to(PROJECT))
    if any(word in str(place) for word in _PYTEST_SIGNS):
        raise UsageError(
            f"pytest does not take the folder {place}: it has one of {' '.join(_PYTEST_SIGNS)} in "
            "its path",
            hint="rename it, or run its tests without --trust-tests",
        )
    return str(place)


def own_suites(wanted: Selection, plan: Plan) -> list[Suite]:
    """The selected suites that modules bring and that are not trusted."""
    if wanted.scope.upstream or wanted.trust_tests:
        return []
    return [
        Suite(Path(driver.folder), _of_driver(plan, driver), wanted.expression, wanted.seed)
        for driver in wanted.own_tests
        if driver.name in wanted.scope.drivers
    ]


def _of_driver(plan: Plan, driver: Manifest) -> Plan:
    """The plan, reduced to a driver and its own tests."""
    scope = msgspec.structs.replace(plan.scope, drivers=(driver.name,))
    return msgspec.structs.replace(plan, scope=scope, manifests=portable([driver]), own=True)


def arguments(plan: Path, wanted: Selection) -> list[str]:
    """What pytest is called with, in the folder PROJECT, besides `trusted`."""
    found = ["-c", str(SUITES_INI), "--rootdir", ".", "--confcutdir", "."]
    found += ["-p", "blockyard.tests.harness.plugin", "--blockyard-plan", str(plan)]
    found += seeded(wanted.seed)
    if wanted.expression:
        found += ["-k", wanted.expression]
    if wanted.arguments:  # --lf needs a cache
        return [*found, "-o", f"cache_dir={settings().cache_dir / 'pytest'}", *wanted.arguments]
    # the output is ours, the order is by guest, and suites leave no files in the checkout
    return [*found, "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:junitxml"]


def call(arguments: list[str], plugin: object) -> int:
    """Runs pytest in this process, in the checkout's folder; its exit code."""
    with environment.cleaned(), contextlib.chdir(PROJECT):
        environment.mention_ignored()
        return pytest.main(arguments, plugins=[plugin])


def collect(plan: Path, wanted: Selection) -> dict[str, CaseId]:
    """The selected tests in their order: pytest's id → ours; see `own_id` for a module's own.

    Raises UsageError when nothing matches, Failure when a suite cannot be read, KeyboardInterrupt.
    """
    places = trusted(wanted)
    names = _collect_trusted(plan, wanted, places) if places else {}
    for suite in own_suites(wanted, read_plan(plan)):
        for test in runner.collect(suite):
            name = CaseId(suite.name, test.name, test.slot, test.features)
            names[own_id(suite, test.nodeid)] = name
    if not names:
        raise UsageError("no test matches", hint="./inv test --suite all --list shows all of them")
    _check_unique(names)
    return names


def _check_unique(names: Mapping[str, CaseId]) -> None:
    """A record names a test by suite, class and function: two of one name would be one result."""
    nodes: dict[tuple[str, Slot], str] = {}
    for nodeid, name in names.items():
        other = nodes.setdefault((name.id, name.slot), nodeid)
        if other != nodeid:
            first, second = (node.rpartition("!")[2].partition("[")[0] for node in (other, nodeid))
            raise UsageError(
                f"two tests are called {name.id}: {first} and {second}",
                hint="rename one: a suite's tests need names of their own, whatever their files",
            )


def own_id(suite: Suite, nodeid: str) -> str:
    """What a module's own test is called in the run; two modules' files may have one name."""
    return f"{suite.name}!{nodeid}"


def _collect_trusted(plan: Path, wanted: Selection, places: list[str]) -> dict[str, CaseId]:
    collection = _Collection()
    asked = [*places, *arguments(plan, wanted), "--collect-only"]
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        if wanted.arguments:  # pytest prints the list, which is not what the user asked for
            stack.enter_context(contextlib.redirect_stdout(printed))
            stack.enter_context(contextlib.redirect_stderr(printed))
        code = call(asked, collection)
    if collection.interrupted:
        raise KeyboardInterrupt
    if collection.problems:
        raise Failure("a suite cannot be read:\n" + "\n".join(collection.problems))
    if code == pytest.ExitCode.USAGE_ERROR:  # which pytest has told
        why = f"-k {wanted.expression!r}, or " if wanted.expression else ""
        if wanted.arguments:
            words = shlex.join(wanted.arguments)
            raise UsageError(f"pytest does not understand {words}:\n{_indented(printed)}")
        raise UsageError(f"pytest does not understand {why}the files of a suite")
    return collection.names


def _indented(printed: io.StringIO) -> str:
    return "\n".join(f"    {line}" for line in printed.getvalue().strip().splitlines()[-6:])


def collected(wanted: Selection) -> dict[str, CaseId]:
    """The tests that a run would have, see `collect`; nothing is built or booted."""
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        plan = Path(folder) / "plan.json"
        write_plan(wanted.plan(), plan)
        return collect(plan, wanted)
