# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns pytest's reports into outcomes; prints them and writes them to the journal as they come."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from blockyard.ci.run import journal as run_journal
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.collection import Interruptible
from blockyard.ci.run.journal import Journal
from blockyard.ci.run.record import utc
from blockyard.ci.run.rerun import Rerun
from blockyard.ci.run.selection import SubRun
from blockyard.ci.run.under_way import RunningTests
from blockyard.kernel.host.progress import note
from blockyard.tests.harness.known import Known
from blockyard.tests.harness.outcomes import BAD, Boot, CaseResult, Outcome, SkipReason, worse
from blockyard.tests.harness.plugin import PROPERTY

LAST = ("teardown", "???")  # last phases; pytest-xdist reports "???" for a worker that died


@dataclass
class _Phases:
    outcome: Outcome = "pass"
    seconds: float = 0.0
    reason: str = ""
    kernel_log: str = ""
    guest: str = ""
    skip: SkipReason | None = None
    splat: bool = False  # whether the kernel log has a splat


@dataclass(eq=False)
class Collector(Interruptible):
    """A pytest plugin of the controlling process that collects outcomes and prints them."""

    names: dict[str, CaseId]
    known: Known
    sub_run: SubRun | None = None
    journal: Journal | None = None
    rerun: Rerun | None = None
    folder: str = ""  # of this part of a resumed run, relative to the run's folder
    earlier: Mapping[str, CaseResult] = field(default_factory=dict)  # of earlier parts, by name
    results: list[CaseResult] = field(default_factory=list)
    under_way: RunningTests = field(default_factory=RunningTests)
    booted: bool = False  # whether any guest booted
    boots: list[Boot] = field(default_factory=list)
    silent: bool = False  # whether pytest prints its own lines in place of ours
    stopped: str = ""  # why pytest stopped early, such as for -x
    defects: list[str] = field(default_factory=list)  # internal errors of pytest
    _unfinished: dict[str, CaseId] = field(init=False)
    _phases: dict[str, _Phases] = field(default_factory=dict)
    _started: dict[str, str] = field(default_factory=dict)  # pytest's id → when, UTC

    def __post_init__(self) -> None:
        self._unfinished = dict(self.names)

    def pytest_internalerror(self, excrepr: object) -> None:
        """Keeps an internal error of pytest or a plugin, which fails the run."""
        self.defects.append(str(excrepr))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keeps pytest's reason to stop early."""
        why = session.shouldfail or session.shouldstop
        self.stopped = str(why) if why else ""

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Records the start of a test, in this process or in a worker."""
        self._started[nodeid] = utc(time.time())
        name = str(self.names.get(nodeid, nodeid))
        self.under_way.start(name)
        if self.journal:
            self.journal.started(name)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds a phase of a test; after its last phase the result."""
        nodeid = report.nodeid
        if report.when == LAST[1] and nodeid not in self._unfinished:
            return  # the worker died right after the test
        phases = self._phases.setdefault(nodeid, _Phases())
        facts: dict[str, Any] = dict(report.user_properties).get(PROPERTY) or {}  # type: ignore[assignment]
        outcome: Outcome = facts.get("outcome") or ("fail" if report.failed else "pass")
        if not facts and report.failed:  # a worker that died reports without facts
            outcome = "lost"
            facts = {"reason": report.longreprtext}
        if report.failed and outcome not in BAD and outcome != "xpass":
            outcome = "fail"
        phases.seconds += report.duration
        self.booted |= bool(facts.get("booted"))
        if fields := facts.get("boot"):
            boot = msgspec.convert(fields, Boot)
            boot = msgspec.structs.replace(boot, guest=f"{self.folder}{boot.guest}")
            self.boots.append(boot)
            if self.journal:
                self.journal.booted(boot)
        phases.guest = facts.get("guest", phases.guest)
        phases.splat |= facts.get("splat", False)
        if worse(outcome, phases.outcome) != phases.outcome:
            phases.outcome = outcome
            phases.reason = facts.get("reason", "")
            skip = facts.get("skip")
            phases.skip = msgspec.convert(skip, SkipReason) if skip else None
        phases.kernel_log = facts.get("kernel_log") or phases.kernel_log
        if report.when in LAST:
            self._finish(nodeid, self._phases.pop(nodeid))

    def _finish(self, nodeid: str, phases: _Phases) -> None:
        self._unfinished.pop(nodeid, None)
        name = self.names[nodeid]
        slot = name.slot
        if entry := self.known.find(name.id, slot.driver, slot.topology):
            phases.outcome = entry.verdict(phases.outcome, splat=phases.splat)
            if phases.outcome == "xfail":
                phases.reason = f"{entry}\n{phases.reason}"
            elif phases.outcome == "xpass":
                phases.reason = f"expected to fail: {entry}"
        self._add(nodeid, name, phases)
        self.under_way.finish(str(name))
        if self.journal:
            self.journal.finished(str(name), self.results[-1], booted=self.booted)
        if self.sub_run or self.silent:
            return
        done = len(self.results) + len(self.earlier)
        total = len(self.names) + len(self.earlier)
        count = f"[{done:{len(str(total))}}/{total}]"
        why = f"  {phases.reason.splitlines()[0]}" if phases.reason else ""
        note(f"{count} {phases.outcome:<7} {name} {phases.seconds:.1f} s{why}")

    def lose(self, nodeids: Iterable[str], reason: str) -> None:
        """Records these tests as lost unless they have finished."""
        for nodeid in nodeids:
            if nodeid in self._unfinished:
                phases = self._phases.pop(nodeid, _Phases())
                phases.outcome, phases.reason = "lost", reason
                self._finish(nodeid, phases)

    @property
    def over(self) -> bool:
        """Whether no more tests should run: a sub-run may stop at its first bad test."""
        stop = self.sub_run is not None and self.sub_run.stop
        return stop and any(result.outcome in BAD for result in self.results)

    def finish(self) -> tuple[CaseResult, ...]:
        """All results, by driver and console; unfinished tests are lost.

        A sub-run that stopped at a bad test has no results of unfinished tests.
        """
        running = self.under_way.names()
        for nodeid, name in () if self.over else self._unfinished.items():
            why = run_journal.why_lost(str(name) in running)
            if self.stopped and str(name) not in running:
                why = f"not run: {self.stopped}"
            self._add(nodeid, name, _Phases(outcome="lost", reason=why))
        self._unfinished.clear()
        results = [*self.earlier.values(), *self.results]
        return tuple(sorted(results, key=lambda result: (result.driver, result.console)))

    def _add(self, nodeid: str, name: CaseId, phases: _Phases) -> None:
        again = self.rerun if phases.outcome in BAD else None
        self.results.append(
            CaseResult(
                id=name.id,
                suite=name.suite,
                driver=name.slot.driver,
                console=name.slot.console,
                topology=name.slot.topology,
                features=name.features,
                outcome=phases.outcome,
                started=self._started.get(nodeid, ""),
                seconds=round(phases.seconds, 3),
                reason=phases.reason,
                skip=phases.skip,
                kernel_log=phases.kernel_log,
                guest=f"{self.folder}{phases.guest}" if phases.guest else "",
                rerun=again.command(name, nodeid) if again else "",
            )
        )
