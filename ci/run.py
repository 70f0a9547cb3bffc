# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the suites: plan it, let pytest do it, record what came of it.

pytest runs in this process, with workers of pytest-xdist when guests are to run side by side. A
collector of ours turns its reports into outcomes as they come, so an interrupted run still has a
record of what it did; a test that was to run and never reported is `lost`.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ci import record
from ci.prepare import CONSOLES, Ready, chosen
from images import setup, topology
from images.setup import Start
from images.topology import DEFAULT, Topology
from kernel.artifact import Kernel
from kernel.host.errors import Failed, UserError
from kernel.host.progress import note
from kernel.host.settings import PROJECT
from kernel.variants import PLAIN
from modules import manifest
from modules.manifest import Manifest
from tests import budget, known, needs
from tests.guests import Slot
from tests.known import Known
from tests.outcomes import BAD, Outcome, TestResult, worse
from tests.plan import Plan
from tests.plugin import PROPERTY
from tests.upstream.checkout import Upstream

SUITES = PROJECT / "tests" / "suites"
UPSTREAM = PROJECT / "tests" / "upstream" / "test_blktests.py"
PORTION = 20  # tests; a guest is ready in the time that three or four of them take


@dataclass(frozen=True)
class Selection:
    """What of the suites to run."""

    drivers: tuple[str, ...]
    consoles: tuple[str, ...]
    suites: tuple[str, ...]
    expression: str = ""  # pytest's -k
    folders: tuple[str, ...] = ()  # of drivers outside the kernel tree
    topology: Topology = DEFAULT
    start: Start = "boot"
    budget: budget.Name = "default"
    seed: int | None = None  # for another order of the tests
    upstream: Upstream | None = None  # of blktests, in place of the suites


@dataclass(frozen=True)
class Trial:
    """A run that is a part of something larger: it prints nothing, and may end early.

    Known failures are left out: they say nothing, and many of them wait for a time-out.
    """

    directory: Path  # of its record, made by the caller
    only: frozenset[tuple[str, str]] | None = None  # these tests, by their keys; None: all
    stop: bool = False  # at the first bad test


def default_guests() -> int:
    """How many guests run side by side unless the user says: one per two CPUs, at least two."""
    return max(2, (os.cpu_count() or 1) // 2)


def suites(folders: Sequence[str] = ()) -> dict[str, Path]:
    """The suites there are: name → folder or file. Those in drivers' own folders come last.

    A suite is a folder of test files, or a single one.
    """
    found = {path.parent.name: path.parent for path in sorted(SUITES.glob("*/test_*.py"))}
    places = [SUITES, *map(Path, folders)]
    files = [path for place in places for path in sorted(place.glob("test_*.py"))]
    return found | {path.stem.removeprefix("test_"): path for path in files}


def selection(
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

    outside: drivers outside the kernel tree; when there are any, they are all drivers unless the
    user names others. Else all are those of Linux; see `with_carried` for the rest.
    """
    names = tuple(one.name for one in outside)
    known = (*names, *manifest.names())
    of_linux = tuple(name for name in manifest.names() if not manifest.load(name).carried_by)
    folders = tuple(one.folder for one in outside)
    return Selection(
        chosen("driver", driver, known) if driver else names or of_linux,
        chosen("console", console, CONSOLES),
        chosen("suite", suite, tuple(suites(folders))),
        expression,
        folders,
        topology.load(hardware),
        setup.start_named(start),
        spend,
        _seed(seed),
    )


def budget_named(*, quick: bool, long: bool) -> budget.Name:
    """The budget that two options name."""
    if quick and long:
        raise UserError("--quick and --long exclude each other")
    return "quick" if quick else "long" if long else "default"


def _seed(text: str) -> int | None:
    if text and not text.isdecimal():
        raise UserError(f"--seed takes a number, not {text!r}")
    return int(text) if text else None


def with_carried(wanted: Selection, kernel: Kernel) -> Selection:
    """The selection with the drivers that are not in Linux but in this kernel."""
    carried = [
        name
        for name in manifest.names()
        if manifest.load(name).carried_by and not manifest.load(name).missing_from(kernel)
    ]
    return replace(wanted, drivers=tuple(dict.fromkeys((*wanted.drivers, *carried))))


@dataclass(frozen=True)
class TestId:
    """Names one test of a run."""

    __test__ = False

    suite: str
    name: str
    slot: Slot
    features: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """As in the record and in lists."""
        return f"{self.suite}/{self.name}"

    @property
    def key(self) -> tuple[str, str]:
        """As TestResult.key: the same test in another run has the same."""
        return self.id, self.slot.topology

    def __str__(self) -> str:
        return f"{self.id}[{self.slot}]"


def _test_id(item: pytest.Item) -> TestId:
    """A collected item's name; parameters of the test's own stand in parentheses."""
    assert isinstance(item, pytest.Function)
    slot = item.callspec.params["slot"]
    assert isinstance(slot, Slot)
    own = item.callspec.id.removeprefix(str(slot)).removesuffix(f"-{slot}").removeprefix("-")
    name = item.originalname.removeprefix("test_") + (f"({own})" if own else "")
    return TestId(
        suite=_suite(item.path),
        name=own if item.path == UPSTREAM else name,
        slot=slot,
        features=needs.features(item),
    )


def _suite(path: Path) -> str:
    """The suite of a test file."""
    in_folder = path.parent.parent == SUITES
    return path.parent.name if in_folder else path.stem.removeprefix("test_")


@dataclass
class _Phases:
    outcome: Outcome = "pass"
    seconds: float = 0.0
    reason: str = ""
    kernel_log: str = ""
    guest: str = ""


def portions(names: Mapping[str, TestId]) -> dict[str, str]:
    """Which tests one worker does in a row: pytest's id → name of the portion.

    A portion is a part of one slot's tests: large enough to be worth a guest, and small enough for
    the workers to end together.
    """
    counts: Counter[Slot] = Counter()
    found = {}
    for nodeid, name in names.items():
        found[nodeid] = f"{name.slot}#{counts[name.slot] // PORTION}"
        counts[name.slot] += 1
    return found


# eq=False: where a suite has a conftest.py, pytest puts its plugins into a set
@dataclass(eq=False)
class _Collection:
    """A pytest plugin that keeps what was collected: pytest's id → ours."""

    names: dict[str, TestId] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """All tests that were selected, in their order."""
        self.names = {item.nodeid: _test_id(item) for item in session.items}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A suite that cannot be read is never taken for an empty one."""
        if report.failed:
            self.problems.append(str(report.longrepr))


@dataclass(eq=False)
class Collector:
    """A pytest plugin of the controlling process: gathers outcomes and shows them."""

    names: dict[str, TestId]
    known: Known
    trial: Trial | None = None
    results: list[TestResult] = field(default_factory=list)
    interrupted: bool = False
    defects: list[str] = field(default_factory=list)
    _waiting: dict[str, TestId] = field(init=False)
    _phases: dict[str, _Phases] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._waiting = dict(self.names)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """Tests of one slot go to a worker together, so that they share a guest."""
        from xdist.scheduler import LoadScopeScheduling

        together = portions(self.names)

        class BySlot(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
            def _split_scope(self, nodeid: str) -> str:
                return together[nodeid]

        return BySlot(config, log)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """The user's Ctrl-C, as told from pytest's own reasons to stop."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_internalerror(self, excrepr: object) -> None:
        """A defect in pytest or a plugin: the run is worth nothing."""
        self.defects.append(str(excrepr))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One phase of a test."""
        phases = self._phases.setdefault(report.nodeid, _Phases())
        facts: dict[str, Any] = dict(report.user_properties).get(PROPERTY) or {}  # type: ignore[assignment]
        outcome: Outcome = facts.get("outcome") or ("fail" if report.failed else "pass")
        if not facts and report.failed:  # a worker that died reports without facts
            outcome = "lost"
            facts = {"reason": report.longreprtext}
        if report.failed and outcome not in BAD and outcome != "xpass":
            outcome = "fail"
        phases.seconds += report.duration
        phases.guest = facts.get("guest", phases.guest)
        if worse(outcome, phases.outcome) != phases.outcome:
            phases.outcome = outcome
            phases.reason = facts.get("reason", "")
        phases.kernel_log = facts.get("kernel_log") or phases.kernel_log
        if report.when == "teardown" or not report.user_properties:
            self._finish(report.nodeid, self._phases.pop(report.nodeid))

    def _finish(self, nodeid: str, phases: _Phases) -> None:
        self._waiting.pop(nodeid, None)
        name = self.names[nodeid]
        slot = name.slot
        if entry := self.known.find(name.id, slot.driver, slot.topology):
            phases.outcome = self.known.verdict(phases.outcome, entry)
            if phases.outcome == "xfail":
                phases.reason = f"{entry}\n{phases.reason}"
            elif phases.outcome == "xpass":
                phases.reason = f"expected to fail: {entry}"
        self._add(name, phases)
        if self.trial:
            return
        width = len(str(len(self.names)))
        count = f"[{len(self.results):{width}}/{len(self.names)}]"
        why = f"  {phases.reason.splitlines()[0]}" if phases.reason else ""
        note(f"{count} {phases.outcome:<7} {name} {phases.seconds:.1f} s{why}")

    def finish(self) -> tuple[TestResult, ...]:
        """All results, in a stable order; a test that never reported is lost.

        One that a trial did not wait for is no result.
        """
        why = "the run ended before this test reported"
        over = self.trial and self.trial.stop and any(one.outcome in BAD for one in self.results)
        for name in () if over else self._waiting.values():
            self._add(name, _Phases(outcome="lost", reason=why))
        self._waiting.clear()
        return tuple(sorted(self.results, key=lambda one: (one.driver, one.console)))

    def _add(self, name: TestId, phases: _Phases) -> None:
        self.results.append(
            TestResult(
                id=name.id,
                suite=name.suite,
                driver=name.slot.driver,
                console=name.slot.console,
                topology=name.slot.topology,
                features=name.features,
                outcome=phases.outcome,
                seconds=round(phases.seconds, 3),
                reason=phases.reason,
                kernel_log=phases.kernel_log,
                guest=phases.guest,
            )
        )


def _arguments(plan: Path, wanted: Selection) -> list[str]:
    places = suites(wanted.folders)
    upstream = [UPSTREAM] if wanted.upstream else []
    arguments = [str(path) for path in upstream or [places[suite] for suite in wanted.suites]]
    arguments += ["-c", str(PROJECT / "pyproject.toml"), "--rootdir", str(PROJECT)]
    arguments += ["-p", "tests.plugin", "--blockyard-plan", str(plan)]
    # the output is ours, the order is by guest, and suites leave no files in the checkout
    arguments += ["-p", "no:terminal", "-p", "no:cacheprovider"]
    seeded = wanted.seed is not None
    arguments += [f"--randomly-seed={wanted.seed}"] if seeded else ["-p", "no:randomly"]
    arguments += ["-p", "no:junitxml", "-o", "addopts=--import-mode=importlib --strict-markers"]
    if wanted.expression:
        arguments += ["-k", wanted.expression]
    return arguments


def collect(plan: Path, wanted: Selection) -> dict[str, TestId]:
    """The selected tests in their order: pytest's id → ours.

    Raises UserError when nothing matches, Failed when a suite cannot be read.
    """
    collection = _Collection()
    arguments = [*_arguments(plan, wanted), "--collect-only", "-p", "no:xdist"]
    code = pytest.main(arguments, plugins=[collection])
    if collection.problems:
        raise Failed("a suite cannot be read:\n" + "\n".join(collection.problems))
    if code == pytest.ExitCode.USAGE_ERROR:
        raise UserError(f"pytest does not understand -k {wanted.expression!r}")
    if not collection.names:
        raise UserError("no test matches", hint="./inv test --list shows all of them")
    return collection.names


def listing(wanted: Selection, directory: Path) -> list[TestId]:
    """The tests that a run would have; nothing is built or booted."""
    plan = directory / "plan.json"
    plan.write_bytes(msgspec.json.encode(_selected(wanted)))
    return list(collect(plan, wanted).values())


def _selected(wanted: Selection) -> Plan:
    return Plan(
        drivers=wanted.drivers,
        consoles=wanted.consoles,
        folders=wanted.folders,
        topology=wanted.topology,
        start=wanted.start,
        budget=wanted.budget,
        upstream=wanted.upstream,
    )


def _plan(ready: Ready, wanted: Selection, directory: Path) -> Plan:
    return msgspec.structs.replace(
        _selected(wanted),
        directory=str(directory),
        kernel=str(ready.kernel.path),
        kernel_name=ready.kernel.info.name,
        tools=str(ready.tools.path),
        root=str(ready.files.root),
        modules=str(ready.files.modules),
        initramfs=str(ready.files.initramfs),
        accelerator=ready.accelerator.name,
        accelerator_reason=ready.accelerator.reason,
        accelerator_scale=ready.accelerator.scale,
    )


def of_trial(
    names: dict[str, TestId], trial: Trial, is_known: Known
) -> tuple[dict[str, TestId], list[str]]:
    """The tests of a trial, and how pytest is told."""
    left = {
        nodeid: name
        for nodeid, name in names.items()
        if (trial.only is None or name.key in trial.only)
        and not is_known.find(name.id, name.slot.driver, name.slot.topology)
    }
    arguments = [f"--deselect={nodeid}" for nodeid in names if nodeid not in left]
    return left, [*arguments, *(["--maxfail=1"] if trial.stop else [])]


def run(
    ready: Ready,
    wanted: Selection,
    workers: int,
    variant: str = PLAIN,
    trial: Trial | None = None,
) -> tuple[record.Run, Path]:
    """Runs the selected tests, `workers` guests at a time; the record and its path."""
    begun = time.time()
    directory = trial.directory if trial else record.new_directory(ready.kernel.info.name)
    plan = directory / "plan.json"
    plan.write_bytes(msgspec.json.encode(_plan(ready, wanted, directory)))
    is_known = known.of(wanted.folders, ready.kernel.info.release, variant)
    names, arguments = collect(plan, wanted), _arguments(plan, wanted)
    if trial:
        names, more = of_trial(names, trial, is_known)
        arguments += more
    collector = Collector(names, is_known, trial)
    workers = min(workers, len(set(portions(collector.names).values())))
    if workers > 1:
        arguments += ["-n", str(workers), "--dist", "loadscope", "--no-loadscope-reorder"]
        arguments += ["--max-worker-restart", "0"]
    else:
        arguments += ["-p", "no:xdist"]
    code = pytest.main(arguments, plugins=[collector])
    finished = record.Run(
        run=directory.name,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        seconds=round(time.time() - begun, 1),
        host=record.this_host(),
        accelerator=record.UsedAccelerator(ready.accelerator.name, ready.accelerator.reason),
        kernel=ready.kernel.info,
        topology=wanted.topology.name,
        variant=variant,
        budget=wanted.budget,
        upstream=wanted.upstream.source if wanted.upstream else "",
        outdated=tuple(is_known.over()),
        tests=collector.finish(),
    )
    path = record.write(finished, directory)
    if collector.interrupted:
        note(f"what was done is recorded in {path}")
        raise KeyboardInterrupt
    if collector.defects:
        raise Failed(f"pytest broke down (record: {path})\n" + "\n".join(collector.defects))
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and finished.ok:
        raise Failed(f"pytest ended with {code!r} (record: {path})")
    return finished, path
