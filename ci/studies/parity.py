# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv parity`: compares a Rust driver with its C counterpart, feature by feature.

A test names the features that it tests (`requirements.features`). The state of a feature follows
from the outcomes of its tests on each driver:

``supported``   all its tests pass
``differs``     only tests of the suite `abi` fail: user space can tell the drivers apart
``broken``      another test fails, known failures included
``missing``     the tests need something that the driver lacks
``untested``    the tests need something that the kernel or the guest lacks
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from blockyard.ci import output
from blockyard.ci.report import markdown, terminal
from blockyard.ci.report.table import Cell as TableCell
from blockyard.ci.report.table import Row, Style, Table, table
from blockyard.ci.run import boot_env, past_run, record, run, selection
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest
from blockyard.tests.harness.outcomes import BAD, CaseResult

State = Literal["supported", "differs", "broken", "missing", "untested"]
STATES: tuple[State, ...] = get_args(State)
PAGE = PROJECT / "docs" / "parity.md"
ABI = "abi"  # the suite whose failures are differences
STYLES: dict[str, Style] = {
    "supported": "good",
    "differs": "note",
    "broken": "bad",
    "missing": "quiet",
}


class Cell(msgspec.Struct, frozen=True):
    """State of a feature in a driver."""

    state: State
    tests: int  # number of its tests
    how: tuple[str, ...] = ()  # reasons: what differs, is broken or is missing


class Pair(msgspec.Struct, frozen=True):
    """Comparison of a Rust driver with its C counterpart, in one kernel."""

    kernel: str
    release: str
    c: str
    rust: str
    record: str  # folder of the run that it is from
    features: dict[str, dict[str, Cell]]  # feature → driver → state

    def counts(self, driver: str) -> Counter[State]:
        """State → number of features of a driver."""
        return Counter(cells[driver].state for cells in self.features.values())

    def missing(self) -> dict[str, int]:
        """Features that only the C driver has → number of their tests, most tests first."""
        waiting = {
            feature: cells[self.rust].tests
            for feature, cells in self.features.items()
            if cells[self.rust].state == "missing" and cells[self.c].state != "missing"
        }
        return dict(sorted(waiting.items(), key=lambda item: (-item[1], item[0])))


def cell(tests: Sequence[CaseResult]) -> Cell:
    """The state of a feature, from the results of its tests on a driver."""
    failed = [test for test in tests if test.outcome in BAD or test.outcome == "xfail"]
    broken = [test for test in failed if test.suite != ABI]
    if broken:
        return Cell("broken", len(tests), _reasons(broken))
    if failed:
        return Cell("differs", len(tests), _reasons(failed))
    if any(test.outcome in ("pass", "xpass") for test in tests):
        return Cell("supported", len(tests))
    lacks = [test for test in tests if test.skip and test.skip.lacking == "driver"]
    return Cell("missing" if lacks else "untested", len(tests), _reasons(lacks or tests))


def _reasons(tests: Iterable[CaseResult]) -> tuple[str, ...]:
    """Each reason once, as one line: the known failure, and the message of the test."""
    return tuple(dict.fromkeys(": ".join(test.reason.splitlines()[:2]) for test in tests))


def pair(finished: record.Run, path: Path, rust: str) -> Pair:
    """Compares a Rust driver and its counterpart, from a run of both.

    Leaves out features that neither has. path: of the run's run.json.
    """
    c = manifest.load(rust).counterpart
    results: dict[str, dict[str, list[CaseResult]]] = {}
    for test in finished.tests:
        if test.driver in (c, rust):
            for feature in test.features:
                results.setdefault(feature, {c: [], rust: []})[test.driver].append(test)
    features = {
        feature: {driver: cell(tests) for driver, tests in results[feature].items()}
        for feature in sorted(results)
    }
    absent = {"missing", "untested"}
    return Pair(
        kernel=finished.kernel.name,
        release=finished.kernel.release,
        c=c,
        rust=rust,
        record=path.parent.name,
        features={
            feature: cells
            for feature, cells in features.items()
            if not {cell.state for cell in cells.values()} <= absent
        },
    )


def rust_drivers(names: str) -> tuple[str, ...]:
    """The Rust drivers to compare; empty names: those in Linux.

    Raises UsageError for a driver without a C counterpart.
    """
    known = tuple(
        name
        for name in manifest.names()
        if (driver := manifest.load(name)).language == "Rust" and driver.counterpart
    )
    if names:
        return selection.parse_names("Rust driver", names, known)
    return tuple(name for name in known if not manifest.load(name).available_from)


def measure(specs: Sequence[KernelSpec], drivers: Sequence[str], workers: int) -> list[Pair]:
    """Runs the suites (quick, serial console) on each kernel, and compares."""
    pairs = []
    for spec in specs:
        env = boot_env.ready(spec, all_modules=False)
        names = [name for rust in drivers for name in (manifest.load(rust).counterpart, rust)]
        selected = selection.select(",".join(names), "serial", spend="quick")
        note(f"kernel {spec.name}: testing {', '.join(names)}")
        finished, path = run.run(env, selected, workers, spec)
        pairs += [pair(finished, path, rust) for rust in drivers]
    return pairs


def recorded(paths: Iterable[Path], drivers: Sequence[str]) -> list[Pair]:
    """Compares by records of earlier runs.

    Raises UsageError for a record of the smoke tests, or without tests of the drivers.
    """
    pairs = []
    for path in paths:
        file = path / "run.json" if path.is_dir() else path
        finished = past_run.read(file)
        if finished.interrupted:
            note(f"{file} is of an interrupted run: tests without an outcome count as lost")
        if finished.selection.smoke:
            raise UsageError(f"{file} has the smoke tests only: run ./inv test --suite all")
        tested = {test.driver for test in finished.tests}
        for rust in drivers:
            needed = {rust, manifest.load(rust).counterpart}
            if not needed <= tested:
                raise UsageError(f"{file} has no tests of {' and '.join(sorted(needed - tested))}")
            pairs.append(pair(finished, file, rust))
    return pairs


def feature_table(pairs: Sequence[Pair]) -> Table:
    """A row per feature, and a column per kernel and driver."""
    heads = [
        f"{driver}\n{comparison.kernel}"
        for comparison in pairs
        for driver in (comparison.c, comparison.rust)
    ]
    rows: list[Row] = [
        [feature, *(TableCell(state or "-", STYLES.get(state, "")) for state in states)]
        for feature, states in _rows(pairs)
    ]
    return table(["feature", *heads], rows)


def _rows(pairs: Sequence[Pair]) -> list[tuple[str, list[str]]]:
    """Each feature with its states, two per pair; empty where a pair lacks the feature."""
    features = sorted({feature for comparison in pairs for feature in comparison.features})
    return [
        (
            feature,
            [
                comparison.features[feature][driver].state if feature in comparison.features else ""
                for comparison in pairs
                for driver in (comparison.c, comparison.rust)
            ],
        )
        for feature in features
    ]


def summary(comparison: Pair) -> str:
    """Counts of a pair's features by state, and the missing features with most tests."""
    counts = comparison.counts(comparison.rust)
    words = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [
        f"{comparison.kernel} ({comparison.release}): of {len(comparison.features)} features "
        f"{comparison.rust} has {words}"
    ]
    if waiting := comparison.missing():
        first = list(waiting.items())[:5]
        named = ", ".join(f"{feature} ({tests} tests)" for feature, tests in first)
        lines.append(f"  missing, by number of waiting tests: {named}")
    return "\n".join(lines)


HEAD = """\
<!-- generated by `./inv parity --write`, do not edit -->

# Parity

Features of Rust drivers beside their C counterparts. Drivers are probed in a guest, and the
outcomes of tests are compared, see `ci/studies/parity.py`. A feature is *missing* when the driver
lacks what its tests need, *differs* when user space can tell the drivers apart, *broken* when a
test fails.
"""


def page(pairs: Sequence[Pair]) -> str:
    """The text of docs/parity.md."""
    lines = [HEAD]
    lines += [f"- {summary(comparison)}" for comparison in pairs]
    lines += ["", *markdown.lines(feature_table(pairs))]
    for comparison in pairs:
        lines_of_driver = list(_how(comparison.features, comparison.rust))
        if lines_of_driver:
            lines += [
                "",
                f"## How {comparison.rust} differs in {comparison.kernel}",
                "",
                *lines_of_driver,
            ]
    return "\n".join(lines) + "\n"


def _how(features: Mapping[str, Mapping[str, Cell]], driver: str) -> Iterable[str]:
    for feature, cells in features.items():
        if cells[driver].state in ("differs", "broken"):
            yield f"- {feature}: {'; '.join(cells[driver].how)}"


def show(
    specs: Sequence[KernelSpec],
    drivers: str,
    records: str,
    *,
    page_file: Path | None,
    as_json: bool,
) -> None:
    """Compares drivers on kernels, or by records; prints the table and writes the page."""
    rust = rust_drivers(drivers)
    if records:
        pairs = recorded([Path(path) for path in records.split(",") if path], rust)
    else:
        pairs = measure(specs, rust, run.workers())
    if page_file:
        output.write_page(page_file, page(pairs))
    if as_json:
        print(output.as_json(pairs))
        return
    terminal.print_table(feature_table(pairs))
    for comparison in pairs:
        output.say(summary(comparison))
