# SPDX-License-Identifier: GPL-2.0-or-later
"""One run of the suites: plan it, let pytest do it, record what came of it.

pytest runs in this process, with workers of pytest-xdist when guests are to run side by side; tests
that a module brings run in an enclosure (ci.execute). A collector of ours turns the reports into
outcomes as they come, so an interrupted run still has a record of what it did; a test that was to
run and never reported is `lost`.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import msgspec
import pytest

from ci import collection, own_tests, record
from ci.collection import TestId
from ci.execute import Execution
from ci.prepare import Ready
from ci.selection import Selection, Trial
from ci.verdicts import Collector
from kernel.host.errors import Failed, UserError
from kernel.host.progress import note
from kernel.host.settings import settings
from kernel.variants import PLAIN
from tests import known
from tests.known import Known
from tests.outcomes import BAD
from tests.plan import Plan


def workers(guests: int = 0) -> int:
    """How many guests run side by side; 0: one per two CPUs, at least two."""
    if guests < 0:
        raise UserError(f"--guests takes a number from 1 on, or 0 for the default, not {guests}")
    return guests or max(2, (os.cpu_count() or 1) // 2)


def check(wanted: Selection) -> None:
    """What can be wrong about a run before anything is built for it; raises UserError, Failed."""
    known.check(wanted.folders)
    own_tests.check_nesting(collection.own_suites(wanted, wanted.plan()))
    folder = settings().results_dir
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for one in missing:  # the run makes it
            one.rmdir()
    except OSError as error:
        raise Failed(
            f"cannot write to {folder}: {error.strerror}",
            hint="set BLOCKYARD_RESULTS to a directory that can be written to",
        ) from None


def _plan(ready: Ready, wanted: Selection, directory: Path) -> Plan:
    return msgspec.structs.replace(
        wanted.plan(),
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
    guests: int,
    variant: str = PLAIN,
    trial: Trial | None = None,
) -> tuple[record.Run, Path]:
    """Runs the selected tests, `guests` at a time; the record and its path."""
    begun = time.time()
    own_tests.check_nesting(collection.own_suites(wanted, wanted.plan()))
    directory = trial.directory if trial else record.new_directory(ready.kernel.info.name)
    plan = directory / "plan.json"
    plan.write_bytes(msgspec.json.encode(_plan(ready, wanted, directory)))
    is_known = known.of(wanted.folders, ready.kernel.info.release, variant)
    names, options = collection.collect(plan, wanted), list[str]()
    if trial:
        names, options = of_trial(names, trial, is_known)
    collector = Collector(names, is_known, trial)

    def over() -> bool:
        bad = any(one.outcome in BAD for one in collector.results)
        return bool(trial and trial.stop and bad)

    execution = Execution(plan, wanted, collector, options, guests, over)
    code, problems = execution.run(names, _plan(ready, wanted, directory))
    finished = record.Run(
        run=directory.name,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        seconds=round(time.time() - begun, 1),
        host=record.this_host(),
        accelerator=record.UsedAccelerator(ready.accelerator.name, ready.accelerator.reason),
        kernel=ready.kernel.info,
        topology=wanted.topology.name,
        variant=variant,
        smoke=wanted.smoke,
        budget=wanted.budget,
        upstream=wanted.upstream.source if wanted.upstream else "",
        outdated=tuple(is_known.over()),
        trusted_tests=wanted.folders if wanted.trust_tests else (),
        tests=collector.finish(),
    )
    path = record.write(finished, directory)
    if collector.interrupted:
        note(f"what was done is recorded in {path}")
        raise KeyboardInterrupt
    if collector.defects:
        raise Failed(f"pytest broke down (record: {path})\n" + "\n".join(collector.defects))
    if problems and finished.ok:
        raise Failed(f"{problems[0]} (record: {path})")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and finished.ok:
        raise Failed(f"pytest ended with {code!r} (record: {path})")
    return finished, path
