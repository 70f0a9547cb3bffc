# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects the tests of a selection with pytest.

Our suites are collected in this process, a module's own test files in an enclosure
(module_tests.runner). This pytest gets neither paths of theirs nor the options of a user's own
pytest runs.
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

_PYTEST_SIGNS = ("[", "::")  # they end the path in an argument of pytest


def portion_count(names: Mapping[str, CaseId]) -> int:
    """The number of guests that the tests can use at a time; see tests/harness/portions.py."""
    counts = Counter(name.slot for name in names.values())
    return sum(-(-count // PORTION) for count in counts.values())


class Interruptible:
    """A pytest plugin that distinguishes the user's Ctrl-C from pytest's reasons to stop."""

    interrupted = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Records whether the user interrupted pytest."""
        self.interrupted = excinfo.type is KeyboardInterrupt


# eq=False: where a suite has a conftest.py, pytest puts its plugins into a set
@dataclass(eq=False)
class _Collection(Interruptible):
    """A pytest plugin that keeps the collected tests: pytest's id → ours."""

    names: dict[str, CaseId] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keeps the selected tests in their order."""
        self.names = {item.nodeid: test_id(item) for item in session.items}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keeps the error of a file that cannot be imported, or that skips itself."""
        if not report.passed:
            self.problems.append(str(report.longrepr))

    def pytest_internalerror(self, excrepr: object) -> None:
        """Keeps an error of pytest, a plugin or a conftest.py."""
        self.problems.append(str(excrepr).splitlines()[-1])  # pytest has printed the rest


def trusted(selected: Selection) -> list[str]:
    """The paths of the selected suites that run in this process, as arguments of pytest.

    They are relative to the checkout, whose path may have characters that are special to pytest.
    Raises UsageError for a module's folder with such characters.
    """
    if selected.scope.upstream:
        return [_relative(UPSTREAM)]
    folders = selection.suites(selected.folders)
    own = [suite.folder for suite in own_suites(selected, selected.plan())]
    return [_relative(folders[suite]) for suite in selected.suites if folders[suite] not in own]


def _relative(path: Path) -> str:
    if path.is_relative_to(PROJECT):
        return str(path.relative_to(PROJECT))
    if any(sign in str(path) for sign in _PYTEST_SIGNS):
        raise UsageError(
            f"pytest cannot run tests in {path}: the path contains {' or '.join(_PYTEST_SIGNS)}",
            hint="rename the folder, or run its tests without --trust-tests",
        )
    return str(path)


def own_suites(selected: Selection, plan: Plan) -> list[Suite]:
    """The selected suites of modules' own tests that run in an enclosure."""
    if selected.scope.upstream or selected.trust_tests:
        return []
    return [
        Suite(Path(driver.folder), _of_driver(plan, driver), selected.expression, selected.seed)
        for driver in selected.own_tests
        if driver.name in selected.scope.drivers
    ]


def _of_driver(plan: Plan, driver: Manifest) -> Plan:
    """The plan, reduced to a driver and its own tests."""
    scope = msgspec.structs.replace(plan.scope, drivers=(driver.name,))
    return msgspec.structs.replace(plan, scope=scope, manifests=portable([driver]), own=True)


def arguments(plan: Path, selected: Selection) -> list[str]:
    """pytest's arguments, in the folder PROJECT, except for the paths (`trusted`)."""
    words = ["-c", str(SUITES_INI), "--rootdir", ".", "--confcutdir", "."]
    words += ["-p", "blockyard.tests.harness.plugin", "--blockyard-plan", str(plan)]
    words += seeded(selected.seed)
    if selected.expression:
        words += ["-k", selected.expression]
    if selected.arguments:  # --lf needs a cache
        return [*words, "-o", f"cache_dir={settings().cache_dir / 'pytest'}", *selected.arguments]
    # we print the results, and suites write no files into the checkout
    return [*words, "-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:junitxml"]


def call(arguments: list[str], plugin: object) -> int:
    """Runs pytest in this process, in the folder PROJECT; returns its exit code."""
    with environment.cleaned(), contextlib.chdir(PROJECT):
        environment.mention_ignored()
        return pytest.main(arguments, plugins=[plugin])


def collect(plan: Path, selected: Selection) -> dict[str, CaseId]:
    """The selected tests in their order: pytest's id (or `own_id`) → ours.

    Raises UsageError when nothing matches, Failure when a suite cannot be imported, and
    KeyboardInterrupt.
    """
    paths = trusted(selected)
    names = _collect_trusted(plan, selected, paths) if paths else {}
    for suite in own_suites(selected, read_plan(plan)):
        for test in runner.collect(suite):
            name = CaseId(suite.name, test.name, test.slot, test.features)
            names[own_id(suite, test.nodeid)] = name
    if not names:
        raise UsageError("no test matches", hint="./inv test --suite all --list shows all tests")
    _check_unique(names)
    return names


def _check_unique(names: Mapping[str, CaseId]) -> None:
    """Raises UsageError for two tests with the same id, which names suite, class and function."""
    nodes: dict[tuple[str, Slot], str] = {}
    for nodeid, name in names.items():
        other = nodes.setdefault((name.id, name.slot), nodeid)
        if other != nodeid:
            first, second = (node.rpartition("!")[2].partition("[")[0] for node in (other, nodeid))
            raise UsageError(
                f"two tests are called {name.id}: {first} and {second}",
                hint="rename one of them: test names are unique in a suite, also across files",
            )


def own_id(suite: Suite, nodeid: str) -> str:
    """The id in the run of a module's own test; test files of two modules may share a name."""
    return f"{suite.name}!{nodeid}"


def _collect_trusted(plan: Path, selected: Selection, paths: list[str]) -> dict[str, CaseId]:
    collection = _Collection()
    words = [*paths, *arguments(plan, selected), "--collect-only"]
    printed = io.StringIO()
    with contextlib.ExitStack() as stack:
        if selected.arguments:  # pytest would print the list
            stack.enter_context(contextlib.redirect_stdout(printed))
            stack.enter_context(contextlib.redirect_stderr(printed))
        code = call(words, collection)
    if collection.interrupted:
        raise KeyboardInterrupt
    if collection.problems:
        raise Failure("cannot collect the tests:\n" + "\n".join(collection.problems))
    if code == pytest.ExitCode.USAGE_ERROR:  # pytest has printed why
        why = f"-k {selected.expression!r}, or " if selected.expression else ""
        if selected.arguments:
            refused = shlex.join(selected.arguments)
            raise UsageError(f"pytest does not understand {refused}:\n{_indented(printed)}")
        raise UsageError(f"pytest does not understand {why}the files of a suite")
    return collection.names


def _indented(printed: io.StringIO) -> str:
    return "\n".join(f"    {line}" for line in printed.getvalue().strip().splitlines()[-6:])


def collected(selected: Selection) -> dict[str, CaseId]:
    """The selected tests, see `collect`; builds and boots nothing."""
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        plan = Path(folder) / "plan.json"
        write_plan(selected.plan(), plan)
        return collect(plan, selected)
