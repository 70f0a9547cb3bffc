# SPDX-License-Identifier: GPL-2.0-or-later
"""Reporters: functions that `./inv test --report NAME` calls after a run.

A reporter gets the record and the path of run.json, and usually writes a file beside it. Installed
packages add reporters by entry points in the group `blockyard.reporters`. A reporter cannot change
an outcome or the exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from blockyard.ci import output
from blockyard.ci.report import markdown
from blockyard.ci.run.record import Run
from blockyard.kernel.host.errors import Failure, unknown
from blockyard.kernel.host.progress import note

GROUP = "blockyard.reporters"  # entry points

Reporter = Callable[[Run, Path], None]


def write_markdown(run: Run, record: Path) -> None:
    """Writes report.md beside the record: a table of outcomes, and the bad tests."""
    output.write_page(record.with_name("report.md"), markdown.of_run(run))


BUILT_IN: Mapping[str, Reporter] = {"markdown": write_markdown}


def named(names: Iterable[str]) -> dict[str, Reporter]:
    """Name → reporter; built-in reporters take precedence over those of packages.

    Raises UsageError for an unknown name, Failure for an entry point that cannot be loaded.
    """
    names = list(names)
    if set(names) <= BUILT_IN.keys():  # reading entry points takes time
        return {name: BUILT_IN[name] for name in names}
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    reporters: dict[str, Reporter] = {}
    for name in names:
        if name in BUILT_IN:
            reporters[name] = BUILT_IN[name]
            continue
        if name not in installed:
            raise unknown("reporter", name, {*BUILT_IN, *installed})
        entry = installed[name]
        try:
            reporters[name] = entry.load()
        except Exception as error:  # third-party code
            raise Failure(
                f"cannot load the entry point {entry.name} = {entry.value} of the group {GROUP}: "
                f"{type(error).__name__}: {error}"
            ) from error
    return reporters


def report(reporters: Mapping[str, Reporter], run: Run, record: Path) -> None:
    """Calls each reporter; prints a line on stderr for one that raises."""
    for name, reporter in reporters.items():
        try:
            reporter(run, record)
        except Exception as error:  # third-party code, or a full disk
            note(f"the reporter {name} failed: {type(error).__name__}: {error}")
