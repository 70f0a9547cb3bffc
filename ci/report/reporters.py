# SPDX-License-Identifier: GPL-2.0-or-later
"""Reporters: what `./inv test --report NAME` calls with the record of a finished run.

A reporter is a function of the record and of the path of its run.json; what it writes goes beside
that, or where it likes. Installed packages bring more by entry points of the group
`blockyard.reporters`. A reporter changes no outcome and no exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from blockyard.ci.report import markdown
from blockyard.ci.run.record import Run
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, unknown
from blockyard.kernel.host.progress import note

GROUP = "blockyard.reporters"  # of entry points

Reporter = Callable[[Run, Path], None]


def write_markdown(run: Run, record: Path) -> None:
    """Writes report.md beside the record: the table of outcomes, and what failed."""
    path = record.with_name("report.md")
    store.write(path, markdown.of_run(run).encode())
    note(f"written to {path}")


OWN: Mapping[str, Reporter] = {"markdown": write_markdown}


def named(names: Iterable[str]) -> dict[str, Reporter]:
    """The reporters of these names; ours come before those of packages.

    Raises UsageError for an unknown name, Failure for an entry point that cannot be loaded.
    """
    names = list(names)
    if set(names) <= OWN.keys():  # others are looked up only if they are needed
        return {name: OWN[name] for name in names}
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    found: dict[str, Reporter] = {}
    for name in names:
        if name in OWN:
            found[name] = OWN[name]
            continue
        if name not in installed:
            raise unknown("reporter", name, {*OWN, *installed})
        entry = installed[name]
        try:
            found[name] = entry.load()
        except Exception as error:  # of others' code
            raise Failure(
                f"the entry point {entry.name} = {entry.value} of the group {GROUP} cannot be "
                f"loaded: {type(error).__name__}: {error}"
            ) from error
    return found


def report(reporters: Mapping[str, Reporter], run: Run, record: Path) -> None:
    """Calls the reporters; one that fails is a line on stderr."""
    for name, reporter in reporters.items():
        try:
            reporter(run, record)
        except Exception as error:  # of others' code, or a full disk
            note(f"the reporter {name} failed: {type(error).__name__}: {error}")
