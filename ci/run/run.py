# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the suites: make its plan, run pytest, write the record.

pytest runs in this process, with workers of pytest-xdist for several guests; a module's own tests
run in an enclosure (run.execute). A collector turns the reports into outcomes as they come and
writes them to the run's journal. So an interrupted run still has a record, and a run that was
killed can be resumed (run.resume). A test without a report is `lost`.
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
from blockyard.tests.harness.plan import Plan
from blockyard.tests.harness.plan import write as write_plan


def workers(guests: int = 0) -> int:
    """The number of guests that run at a time; 0: one per two CPUs, at least two."""
    if guests < 0:
        raise UsageError(f"invalid --guests {guests}: expected 1 or more, or 0 for the default")
    return guests or max(2, (os.cpu_count() or 1) // 2)


def check(selected: Selection) -> None:
    """Checks that a run is possible, before anything is built; raises UsageError or Failure."""
    known.check(selected.folders)
    runner.check_nesting(collection.own_suites(selected, selected.plan()))
    record.check_writable()


def of_sub_run(
    names: dict[str, CaseId], sub_run: SubRun, is_known: Known
) -> tuple[dict[str, CaseId], list[str]]:
    """The tests of a sub-run, and the arguments with which pytest runs only these."""
    left = {
        nodeid: name
        for nodeid, name in names.items()
        if (sub_run.only is None or name.key in sub_run.only)
        and not is_known.find(name.id, name.slot.driver, name.slot.topology)
    }
    arguments = [f"--deselect={nodeid}" for nodeid in names if nodeid not in left]
    return left, [*arguments, *(["--maxfail=1"] if sub_run.stop else [])]


def run(
    ready: BootEnv,
    selected: Selection,
    guests: int,
    spec: KernelSpec | None = None,
    sub_run: SubRun | None = None,
    requested: dict[str, str] | None = None,
    earlier: Interrupted | None = None,
    tests: Mapping[str, CaseId] | None = None,
) -> tuple[record.Run, Path]:
    """Runs the selected tests, `guests` at a time; returns the record and its path.

    spec: of the kernel, for the record; None: only its name is recorded. requested: the options of
    the command, by which --resume finds the run. earlier: an interrupted run to resume; raises
    Failure when its kernel or tests have changed since. tests: those of the selection if they are
    already collected (collection.collected).
    """
    started = time.time()
    runner.check_nesting(collection.own_suites(selected, selected.plan()))
    directory = _directory(ready, sub_run, earlier)
    # guests of a resumed part have a folder of their own
    folder = f"resumed-{len(earlier.past.resumed) + 1}/" if earlier else ""
    (directory / folder).mkdir(exist_ok=True)
    plan, plan_file = selected.plan(ready.keys), directory / folder / "plan.json"
    write_plan(plan, plan_file)
    options_of_kernel = KernelOptions(kernel=ready.kernel.info.name)
    if spec:
        options_of_kernel = KernelOptions.of(spec)
    is_known = known.of(selected.folders, ready.kernel.info.release, options_of_kernel.variant)
    names, options = dict(tests or collection.collect(plan_file, selected)), list[str]()
    if sub_run:
        names, options = of_sub_run(names, sub_run, is_known)
    blank = _blank(ready, selected, options_of_kernel, directory, tuple(is_known.obsolete()))
    header = Header(
        requested=requested or {},
        inputs=resume.inputs(ready, selected),
        run=blank,
        tests=resume.planned(names),
    )
    if earlier:
        resume.check(earlier, header)
        blank = earlier.past.resumed_at(record.utc(started))
        log = Journal.reopen(directory, earlier.past, blank.resumed[-1])
        names, options = _without(names, earlier.past.conclusive)
    else:
        log = Journal.create(directory, header)
    _tidy(directory)
    results = earlier.past.conclusive if earlier else {}
    again = Rerun(blank.kernel_options, blank.selection, blank.upstream, selected.trust_tests)
    collector = Collector(
        names, is_known, sub_run, log, None if sub_run else again, folder, results
    )
    collector.silent = bool(selected.arguments)

    execution = Execution(plan_file, selected, collector, options, guests)
    code, problems = _executed(execution, names, plan)
    with interrupts.held():  # save the results before another interrupt counts
        finished = msgspec.structs.replace(
            blank,
            seconds=round(blank.seconds + time.time() - started, 1),
            booted=blank.booted or collector.booted,
            boots=(*blank.boots, *collector.boots),
            interrupted=collector.interrupted,
            under_way=collector.under_way.names(),
            tests=collector.finish(),
        )
        log.close()
        path = record.write(finished, directory)
    _check(
        code, problems, collector, finished, path, "; --resume continues it" if requested else ""
    )
    return finished, path


def _directory(ready: BootEnv, sub_run: SubRun | None, earlier: Interrupted | None) -> Path:
    if earlier:
        return earlier.directory
    return sub_run.directory if sub_run else record.new_directory(ready.kernel.info.name)


def _tidy(directory: Path) -> None:
    """Removes temporary folders of killed runs, which hold copies of guests' memory.

    directory: of this run, whose journal is locked; it may be outside of the results.
    """
    for journal in settings().results_dir.glob(f"*/{run_journal.FILE}"):
        other = journal.parent
        if other == directory or other.is_symlink() or not own_folder.left(other):
            continue
        if not run_journal.is_running(other):
            own_folder.remove_left(other)
    own_folder.remove_left(directory)


def _blank(
    ready: BootEnv,
    selected: Selection,
    kernel_options: KernelOptions,
    directory: Path,
    obsolete: tuple[str, ...],
) -> record.Run:
    """The record before the first test."""
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
        selection=Selected.of(selected),
        upstream=_checkout(selected),
        obsolete_failures=obsolete,
        trusted_tests=selected.folders if selected.trust_tests else (),
        booted=False,
        tests=(),
    )


def _checkout(selected: Selection) -> BlktestsCheckout | None:
    if not (upstream := selected.scope.upstream):
        return None
    return BlktestsCheckout(selected.checkout, upstream.digest, upstream.seconds)


def _without(
    names: Mapping[str, CaseId], done: Container[str]
) -> tuple[dict[str, CaseId], list[str]]:
    """The tests that are not done yet, and the arguments with which pytest runs only these."""
    left = {nodeid: name for nodeid, name in names.items() if str(name) not in done}
    return left, [f"--deselect={nodeid}" for nodeid in names if nodeid not in left]


def _executed(execution: Execution, names: dict[str, CaseId], plan: Plan) -> tuple[int, list[str]]:
    """Calls Execution.run, which a second interrupt can stop while it handles the first."""
    collector = execution.collector
    try:
        with collector.under_way if not (collector.sub_run or collector.silent) else nullcontext():
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
    hint: str,
) -> None:
    """Raises KeyboardInterrupt or Failure for a run that has more to report than outcomes.

    hint: how to continue an interrupted run.
    """
    if collector.interrupted:
        if finished.under_way:
            note(f"under way when the run was interrupted: {', '.join(finished.under_way)}")
        note(f"finished tests are recorded in {path}{hint}")
        raise KeyboardInterrupt
    if collector.defects:
        raise Failure(f"internal error of pytest (record: {path})\n" + "\n".join(collector.defects))
    if problems and finished.ok:
        raise Failure(f"{problems[0]} (record: {path})")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and finished.ok:
        raise Failure(f"pytest exited with {code!r} (record: {path})")
