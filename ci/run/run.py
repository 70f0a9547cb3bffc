# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the suites: plan it, let pytest do it, record what came of it.

pytest runs in this process, with workers of pytest-xdist when guests are to run side by side; tests
that a module brings run in an enclosure (run.execute). A collector of ours turns the reports into
outcomes as they come and writes them to the run's journal. So an interrupted run has a record of
what it did, and one that was killed can be taken up again (run.resume). A test that was to run and
never reported is `lost`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container, Mapping
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import circumstances, collection, record, resume
from blockyard.ci.run import journal as run_journal
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.circumstances import (
    BlktestsCheckout,
    KernelOptions,
    Selected,
    UsedAccelerator,
)
from blockyard.ci.run.execute import Execution
from blockyard.ci.run.journal import Header, Journal
from blockyard.ci.run.module_tests import folder as own_folder
from blockyard.ci.run.module_tests import runner
from blockyard.ci.run.rerun import Rerun
from blockyard.ci.run.resume import Interrupted
from blockyard.ci.run.selection import Selection, SubRun
from blockyard.ci.run.verdicts import Collector
from blockyard.images.files import packages_in
from blockyard.images.machine.qemu import PACKAGE
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host import interrupts
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import settings
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.harness import known
from blockyard.tests.harness.known import Known
from blockyard.tests.harness.outcomes import BAD
from blockyard.tests.harness.plan import Plan
from blockyard.tests.harness.plan import write as write_plan


def workers(guests: int = 0) -> int:
    """How many guests run side by side; 0: one per two CPUs, at least two."""
    if guests < 0:
        raise UsageError(f"--guests takes a number from 1 on, or 0 for the default, not {guests}")
    return guests or max(2, (os.cpu_count() or 1) // 2)


def check(wanted: Selection) -> None:
    """What can be wrong about a run before anything is built for it; raises UsageError, Failure."""
    known.check(wanted.folders)
    runner.check_nesting(collection.own_suites(wanted, wanted.plan()))
    record.check_place()


def of_trial(
    names: dict[str, CaseId], trial: SubRun, is_known: Known
) -> tuple[dict[str, CaseId], list[str]]:
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
    ready: BootEnv,
    wanted: Selection,
    guests: int,
    choice: KernelSpec | None = None,
    trial: SubRun | None = None,
    asked: dict[str, str] | None = None,
    earlier: Interrupted | None = None,
    tests: Mapping[str, CaseId] | None = None,
) -> tuple[record.Run, Path]:
    """Runs the selected tests, `guests` at a time; the record and its path.

    choice: what the kernel was chosen by, for the record; None: by its name alone.
    asked: the options of the command, by which --resume finds the run. earlier: an interrupted run
    to go on with; raises Failure when its outcomes would say nothing about this kernel and tests.
    tests: those of the selection, when they were collected already (collection.collected).
    """
    begun = time.time()
    runner.check_nesting(collection.own_suites(wanted, wanted.plan()))
    directory = _directory(ready, trial, earlier)
    # the guests of a part that is resumed stand in a folder of their own
    folder = f"resumed-{len(earlier.past.resumed) + 1}/" if earlier else ""
    (directory / folder).mkdir(exist_ok=True)
    plan, plan_file = wanted.plan(ready.keys), directory / folder / "plan.json"
    write_plan(plan, plan_file)
    options_of_kernel = KernelOptions(kernel=ready.kernel.info.name)
    if choice:
        options_of_kernel = KernelOptions.of(choice)
    is_known = known.of(wanted.folders, ready.kernel.info.release, options_of_kernel.variant)
    names, options = dict(tests or collection.collect(plan_file, wanted)), list[str]()
    if trial:
        names, options = of_trial(names, trial, is_known)
    blank = _blank(ready, wanted, options_of_kernel, directory, tuple(is_known.obsolete()))
    header = Header(
        asked=asked or {},
        inputs=resume.inputs(ready, wanted),
        run=blank,
        tests=resume.planned(names),
    )
    if earlier:
        resume.check(earlier, header)
        blank = earlier.past.begun_again(record.utc(begun))
        log = Journal.reopened(directory, earlier.past, blank.resumed[-1])
        names, options = _without(names, earlier.past.known)
    else:
        log = Journal.begun(directory, header)
    _tidy(directory)
    results = earlier.past.known if earlier else {}
    again = Rerun(blank.kernel_options, blank.selection, blank.upstream, wanted.trust_tests)
    collector = Collector(names, is_known, trial, log, None if trial else again, folder, results)
    collector.silent = bool(wanted.arguments)

    def over() -> bool:
        bad = any(one.outcome in BAD for one in collector.results)
        return bool(trial and trial.stop and bad)

    execution = Execution(plan_file, wanted, collector, options, guests, over)
    code, problems = _executed(execution, names, plan)
    with interrupts.held():  # whatever else comes: what was found out is saved first
        finished = msgspec.structs.replace(
            blank,
            seconds=round(blank.seconds + time.time() - begun, 1),
            booted=blank.booted or collector.booted,
            boots=(*blank.boots, *collector.boots),
            interrupted=collector.interrupted,
            under_way=collector.under_way.names(),
            tests=collector.finish(),
        )
        log.close()
        path = record.write(finished, directory)
    _check(code, problems, collector, finished, path, "; --resume goes on with it" if asked else "")
    return finished, path


def _directory(ready: BootEnv, trial: SubRun | None, earlier: Interrupted | None) -> Path:
    if earlier:
        return earlier.directory
    return trial.directory if trial else record.new_directory(ready.kernel.info.name)


def _tidy(directory: Path) -> None:
    """Removes what runs that were killed left in their folders: copies of a guest's memory.

    directory: that of this run, whose journal is locked; it may be outside of the results.
    """
    for journal in settings().results_dir.glob(f"*/{run_journal.FILE}"):
        other = journal.parent
        if other == directory or other.is_symlink() or not own_folder.left(other):
            continue
        if not run_journal.is_going_on(other):
            own_folder.remove_left(other)
    own_folder.remove_left(directory)


def _blank(
    ready: BootEnv,
    wanted: Selection,
    kernel_options: KernelOptions,
    directory: Path,
    obsolete: tuple[str, ...],
) -> record.Run:
    """The record as it is before the first test."""
    return record.Run(
        run=directory.name,
        started=record.utc(time.time()),
        seconds=0.0,
        arguments=circumstances.arguments(),
        tool=circumstances.this_tool(),
        host=circumstances.this_host(),
        qemu=ready.tools.versions[PACKAGE],
        accelerator=UsedAccelerator(ready.accelerator.name, ready.accelerator.reason),
        kernel=ready.kernel.info,
        kernel_options=kernel_options,
        guest_packages=packages_in(ready.files.root, ready.tools),
        selection=Selected.of(wanted),
        upstream=_checkout(wanted),
        obsolete_failures=obsolete,
        trusted_tests=wanted.folders if wanted.trust_tests else (),
        booted=False,
        tests=(),
    )


def _checkout(wanted: Selection) -> BlktestsCheckout | None:
    if not (upstream := wanted.scope.upstream):
        return None
    return BlktestsCheckout(wanted.checkout, upstream.digest, upstream.seconds)


def _without(
    names: Mapping[str, CaseId], done: Container[str]
) -> tuple[dict[str, CaseId], list[str]]:
    """The tests that are left to be done, and how pytest is told."""
    left = {nodeid: name for nodeid, name in names.items() if str(name) not in done}
    return left, [f"--deselect={nodeid}" for nodeid in names if nodeid not in left]


def _executed(execution: Execution, names: dict[str, CaseId], plan: Plan) -> tuple[int, list[str]]:
    """Execution.run, which a second interrupt may leave before it has ended for the first."""
    collector = execution.collector
    try:
        with collector.under_way if not (collector.trial or collector.silent) else nullcontext():
            return execution.run(names, plan)
    except KeyboardInterrupt:
        collector.interrupted = True
        return pytest.ExitCode.INTERRUPTED, []


def _check(
    code: int,
    problems: list[str],
    collector: Collector,
    finished: record.Run,
    path: Path,
    how_on: str,
) -> None:
    """Raises what a run has to end with that is more than outcomes; how_on: what to do then."""
    if collector.interrupted:
        if finished.under_way:
            note(f"under way when the run was interrupted: {', '.join(finished.under_way)}")
        note(f"what was done is recorded in {path}{how_on}")
        raise KeyboardInterrupt
    if collector.defects:
        raise Failure(f"pytest broke down (record: {path})\n" + "\n".join(collector.defects))
    if problems and finished.ok:
        raise Failure(f"{problems[0]} (record: {path})")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and finished.ok:
        raise Failure(f"pytest ended with {code!r} (record: {path})")
