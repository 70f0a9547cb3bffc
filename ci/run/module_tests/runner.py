# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects and runs the test files in a module's own folder, inside an enclosure.

They are third-party Python. A separate pytest imports and runs them, without other tests, and boots
its guests inside the enclosure. Its reports are checked line by line (ci.run.module_tests.reports)
and passed to the collector of outcomes like reports of our own pytest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run.module_tests import folder as own_folder
from blockyard.ci.run.module_tests.enclosure import Enclosure, obstacle
from blockyard.ci.run.module_tests.reports import (
    Forged,
    Orders,
    Phase,
    Problem,
    Reader,
    Reading,
    Started,
    Test,
)
from blockyard.ci.run.module_tests.watch import Limits, Overrun, Watched, watched
from blockyard.images.hardware import topologies
from blockyard.images.hardware.topology import Topology
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.installation import IMPORT_ROOT, PROJECT
from blockyard.kernel.host.progress import step
from blockyard.kernel.host.settings import settings
from blockyard.tests.harness.plan import Plan
from blockyard.tests.harness.plan import write as write_plan
from blockyard.tests.harness.plugin import PROPERTY

ORDERS = "orders"  # a sub-folder of the enclosure's folder,
SUITES_INI = PROJECT / "tests" / "harness" / "suites.ini"  # pytest's configuration of all suites
# the program that runs in the enclosure
PROGRAM = IMPORT_ROOT / "blockyard" / "ci" / "run" / "module_tests" / "inside.py"
INSIDE = Path("/mnt/own")  # and its path inside, read-only
COLLECT_S = 60.0  # limit for the import of a file
FILES = 10  # the limit for all files is so many times COLLECT_S
TEST_S = 1800.0  # limit for a phase of a test, with a boot and waits for commands
LONG = 10  # factor for TEST_S with the budget `long`
PROCESS_BYTES = 8 << 30  # limit of address space, without a guest's memory
BESIDE_A_GUEST = 3 << 29  # bytes of memory for each guest: QEMU's own, a worker of pytest
PYTEST_BYTES = 2 << 30
COLLECTED = ("--collect-only",)


@dataclass(frozen=True)
class Suite:
    """A folder of test files that belongs to a driver outside the tree."""

    folder: Path
    plan: Plan  # the run's plan, limited to this driver
    expression: str = ""  # pytest's -k
    seed: int | None = None

    @property
    def name(self) -> str:
        """The suite's name: that of its folder."""
        return self.folder.name

    @property
    def driver(self) -> str:
        """The driver's name, see `manifest.name_of`."""
        return self.plan.scope.drivers[0]


@dataclass(frozen=True)
class Part:
    """The tests of a suite to run, by pytest's ids inside the enclosure."""

    ids: Mapping[str, str]  # id inside → id in the run
    directory: Path  # of the run
    hardware: Sequence[Topology]  # of its guests
    options: Sequence[str] = ()  # more arguments of pytest
    guests: int = 1  # that run at a time


def check_nesting(suites: Sequence[Suite]) -> None:
    """Raises UsageError when guests cannot run inside an enclosure on this host."""
    if suites and (why := obstacle()):
        raise UsageError(
            f"the tests in {suites[0].folder} cannot run in a sandbox: this host does not allow a "
            f"sandbox inside another one ({why})",
            hint="read them, and add --trust-tests to run them without a sandbox; or select other "
            "tests with --suite",
        )


def collect(suite: Suite) -> list[Test]:
    """The tests of a suite, in their order.

    Raises Failure for files that cannot be imported or take too long, UsageError for a wrong -k.
    """
    problems: list[str] = []
    with own_folder.temporary() as folder:
        orders = _orders(suite, folder, COLLECTED, PROCESS_BYTES)
        enclosure = _enclosure(folder, [suite.folder], _writable(folder))
        limits = Limits(COLLECT_S, COLLECT_S * FILES, PYTEST_BYTES, folder)
        reader = Reader(())
        with (
            step(f"reading the tests in {suite.folder}"),
            _started(enclosure, suite, orders, limits) as child,
        ):
            try:
                for data in child.lines():
                    line = reader.read(data)
                    if isinstance(line, Problem):
                        problems.append(line.text)
            except Overrun as overrun:
                where = reader.reading or "conftest.py, or what it imports"
                raise Failure(f"{suite.folder}: reading the tests: {overrun} ({where})") from None
            except Forged as forged:
                raise Failure(f"{suite.folder}: its tests report {forged}") from None
    if problems:
        raise Failure("cannot collect the tests:\n" + "\n".join(problems))
    if reader.finished is None:
        raise Failure(
            f"{suite.folder}: the collection ended early (exit code "
            f"{child.process.returncode}, {reader.reading or 'conftest.py'})\n{_last_lines(child)}"
        )
    if reader.finished.code == pytest.ExitCode.USAGE_ERROR:
        why = f"-k {suite.expression!r}, or " if suite.expression else ""
        raise UsageError(
            f"pytest does not understand {why}the files of a suite:\n{_last_lines(child)}"
        )
    for test in reader.tests.values():
        _check(test, suite)
    return list(reader.tests.values())


def _check(test: Test, suite: Suite) -> None:
    """Raises Failure for a test that claims another driver, console or topology."""
    plan = suite.plan
    known = not test.topology or test.topology in topologies.names()
    if test.driver != suite.driver or test.console not in plan.scope.consoles or not known:
        raise Failure(f"{suite.folder}: {test.nodeid} claims to be a test of {test.slot}")


def _orders(suite: Suite, folder: Path, more: Sequence[str], memory: int) -> list[str]:
    """Writes plan and orders; returns the command inside, without the pipe's descriptor."""
    orders_folder = own_folder.part(folder, ORDERS)
    write_plan(suite.plan, orders_folder / "plan.json")
    # relative to the suite's folder, whose path may have characters that are special to pytest
    words = [".", "--rootdir", ".", "--confcutdir", ".", "-c", str(SUITES_INI)]
    words += ["-p", "blockyard.tests.harness.plugin", "--blockyard-plan", f"{INSIDE}/plan.json"]
    words += ["-p", "no:terminal", "-p", "no:cacheprovider", "-p", "no:junitxml"]
    words += seeded(suite.seed)
    if suite.expression:
        words += ["-k", suite.expression]
    orders = Orders((*words, *more), memory)
    (orders_folder / "orders.json").write_bytes(msgspec.json.encode(orders))
    return [sys.executable, "-I", str(PROGRAM), f"{INSIDE}/orders.json"]


def _writable(folder: Path) -> dict[Path, Path]:
    """The writable folders of an enclosure: path inside → sub-folder of its folder."""
    return {
        Path("/tmp"): own_folder.part(folder, "tmp"),
        settings().cache_dir: own_folder.part(folder, "cache"),
    }


def _enclosure(
    folder: Path, needed: Sequence[Path], writable: Mapping[Path, Path], devices: Sequence[str] = ()
) -> Enclosure:
    orders = {INSIDE: own_folder.part(folder, ORDERS)}
    # the plan has keys of the cache; inside there are neither a home nor a settings file
    environment = {"BLOCKYARD_CACHE": str(settings().cache_dir)}
    return Enclosure(needed, orders, writable, devices, environment)


@contextmanager
def _started(
    enclosure: Enclosure, suite: Suite, argv: Sequence[str], limits: Limits
) -> Iterator[Watched]:
    def with_pipe(descriptor: int) -> list[str]:
        return enclosure.argv([*argv, str(descriptor)], suite.folder)

    with watched(with_pipe, limits) as child:
        yield child


def _last_lines(child: Watched) -> str:
    lines = child.output.decode(errors="replace").strip().splitlines()
    return "\n".join(f"    {line}" for line in lines[-12:])


@dataclass
class _Reports:
    """Passes the reports of an enclosure to the collector, as reports of pytest."""

    ids: Mapping[str, str]  # id inside → id in the run
    collector: object  # a pytest plugin
    manager: pytest.PytestPluginManager = field(default_factory=pytest.PytestPluginManager)

    def __post_init__(self) -> None:
        self.manager.register(self.collector)

    def add(self, line: object) -> None:
        """Passes one report."""
        if isinstance(line, Started):
            nodeid = self.ids[line.nodeid]
            self.manager.hook.pytest_runtest_logstart(nodeid=nodeid, location=_location(nodeid))
        elif isinstance(line, Phase):
            facts = msgspec.to_builtins(line.facts) if line.facts else None
            self._report(self.ids[line.nodeid], line, facts)

    def end(self, inner: str, outcome: str, reason: str) -> None:
        """Reports the outcome of a test that was stopped; inner: its id inside."""
        phase = Phase(inner, "teardown", "failed", 0.0, reason)
        self._report(self.ids[inner], phase, {"outcome": outcome, "reason": reason})

    def _report(self, nodeid: str, phase: Phase, facts: dict[str, object] | None) -> None:
        report = pytest.TestReport(
            nodeid=nodeid,
            location=_location(nodeid),
            keywords={},
            outcome=phase.outcome,
            longrepr=phase.text or None,
            when=phase.when,  # type: ignore[arg-type]  # xdist's "???"
            user_properties=[(PROPERTY, facts)] if facts else [],
            duration=phase.duration,
        )
        self.manager.hook.pytest_runtest_logreport(report=report)
        if phase.when in ("teardown", "???"):
            self.manager.hook.pytest_runtest_logfinish(nodeid=nodeid, location=_location(nodeid))


def _location(nodeid: str) -> tuple[str, int | None, str]:
    return nodeid, None, nodeid


def run(suite: Suite, part: Part, collector: object) -> str:
    """Runs tests of a suite; returns why it ended early, or an empty text.

    collector: the pytest plugin that gets the reports.
    """
    plan, directory = suite.plan, part.directory
    options = [*part.options, *workers(part.guests), "--blockyard-directory", str(directory)]
    guest_bytes = max(topology.memory_mib for topology in part.hardware) << 20
    silence_s = TEST_S * (LONG if plan.scope.budget == "long" else 1)
    with own_folder.of_a_run(directory, suite.name) as folder:
        own_folder.prepare(plan, folder, part.hardware)
        writable = _writable(folder)
        guests = own_folder.part(folder, "guests")
        writable[directory / "guests"] = guests  # the same path as outside, for errors with logs
        # the folder may be below the suite's, which is read-only inside
        (directory / "guests").mkdir(exist_ok=True)
        needed = [suite.folder, *own_folder.needed(plan)]
        devices = plan.env.accelerator.devices if plan.env else []
        memory = PYTEST_BYTES + part.guests * (guest_bytes + BESIDE_A_GUEST)
        orders = _orders(suite, folder, options, PROCESS_BYTES + guest_bytes)
        limits = Limits(silence_s, silence_s * (1 + len(part.ids)), memory, folder)
        reader, reports = Reader(part.ids.keys()), _Reports(part.ids, collector)
        try:
            with _started(
                _enclosure(folder, needed, writable, devices), suite, orders, limits
            ) as child:
                return _follow(child, reader, reports)
        finally:
            own_folder.keep(guests, directory / "guests", suite.driver)


def workers(count: int) -> list[str]:
    """pytest's arguments for a number of workers; tests/harness/portions.py groups the tests."""
    if count < 2:
        return []
    # by this name: pytest-randomly sends its seed to the workers if a plugin "xdist" is there
    words = ["-p", "xdist", "-n", str(count), "--max-worker-restart", "0"]
    return [*words, "--dist", "loadscope", "--no-loadscope-reorder"]


def seeded(seed: int | None) -> list[str]:
    """pytest's arguments for the order of tests; they also keep the user's plugins out."""
    words = ["--disable-plugin-autoload"]
    return words if seed is None else [*words, "-p", "pytest_randomly", f"--randomly-seed={seed}"]


def _follow(child: Watched, reader: Reader, reports: _Reports) -> str:
    """Passes on reports until the pytest inside exits; returns why it ended early, or empty."""
    problems = []
    try:
        for data in child.lines():
            line = reader.read(data)
            if isinstance(line, Problem):
                problems.append(line.text)
            elif not isinstance(line, Reading):
                reports.add(line)
    except Overrun as overrun:
        for nodeid in list(reader.running):
            reports.end(nodeid, "timeout" if overrun.silent else "lost", str(overrun))
        return str(overrun)
    except Forged as forged:
        return f"they report {forged}"
    if problems:
        return "\n".join(problems)
    if reader.finished is None:
        code = child.process.wait()
        return (
            f"pytest exited before its last report (exit code {code})\n{_last_lines(child)}".strip()
        )
    if reader.finished.code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return f"pytest exited with {reader.finished.code}\n{_last_lines(child)}"
    return ""
