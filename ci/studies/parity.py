# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a Rust driver has come beside its C counterpart, feature by feature.

Nothing here is a list by hand. A test says which features it is about (`requirements.features`), a
run says what became of the test on each driver, and both say what becomes of the feature:

``supported``   its tests pass
``differs``     they pass, but user space can tell the drivers apart (the suite `abi`)
``broken``      a test fails, also when that is known
``missing``     the driver lacks what the tests need
``untested``    the kernel or the guest does
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
    """One feature of one driver."""

    state: State
    tests: int  # how many are about it
    how: tuple[str, ...] = ()  # what differs, is broken or is missing


class Pair(msgspec.Struct, frozen=True):
    """A Rust driver and its C counterpart in one kernel."""

    kernel: str
    release: str
    c: str
    rust: str
    record: str  # the run that says so
    features: dict[str, dict[str, Cell]]  # feature → driver → what becomes of it

    def counts(self, driver: str) -> Counter[State]:
        """How many features of a driver are in each state."""
        return Counter(cells[driver].state for cells in self.features.values())

    def missing(self) -> dict[str, int]:
        """What C has and Rust has not: feature → tests that wait for it, the most first."""
        waiting = {
            feature: cells[self.rust].tests
            for feature, cells in self.features.items()
            if cells[self.rust].state == "missing" and cells[self.c].state != "missing"
        }
        return dict(sorted(waiting.items(), key=lambda item: (-item[1], item[0])))


def cell(tests: Sequence[CaseResult]) -> Cell:
    """What becomes of a feature, by the results of a driver's tests of it."""
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
    """Each reason once, in a line: what is known, and what was seen."""
    return tuple(dict.fromkeys(": ".join(test.reason.splitlines()[:2]) for test in tests))


def pair(finished: record.Run, path: Path, rust: str) -> Pair:
    """What a run says of a Rust driver and its counterpart.

    A feature that none of the two has is left out.
    """
    c = manifest.load(rust).counterpart
    found: dict[str, dict[str, list[CaseResult]]] = {}
    for test in finished.tests:
        if test.driver in (c, rust):
            for feature in test.features:
                found.setdefault(feature, {c: [], rust: []})[test.driver].append(test)
    features = {
        feature: {driver: cell(tests) for driver, tests in found[feature].items()}
        for feature in sorted(found)
    }
    none = {"missing", "untested"}
    return Pair(
        kernel=finished.kernel.name,
        release=finished.kernel.release,
        c=c,
        rust=rust,
        record=path.parent.name,
        features={
            feature: cells
            for feature, cells in features.items()
            if not {one.state for one in cells.values()} <= none
        },
    )


def rust_drivers(names: str) -> tuple[str, ...]:
    """The Rust drivers to look at; UsageError for one that has no counterpart in C."""
    known = tuple(
        name
        for name in manifest.names()
        if (one := manifest.load(name)).language == "Rust" and one.counterpart
    )
    if names:
        return selection.parse_names("Rust driver", names, known)
    return tuple(name for name in known if not manifest.load(name).available_from)


def measure(choices: Sequence[KernelSpec], drivers: Sequence[str], workers: int) -> list[Pair]:
    """Runs the suites on each kernel, briefly and over one console, and compares."""
    pairs = []
    for choice in choices:
        ready = boot_env.ready(choice, all_modules=False)
        names = [name for rust in drivers for name in (manifest.load(rust).counterpart, rust)]
        wanted = selection.select(",".join(names), "serial", spend="quick")
        note(f"kernel {choice.name}: testing {', '.join(names)}")
        finished, path = run.run(ready, wanted, workers, choice)
        pairs += [pair(finished, path, rust) for rust in drivers]
    return pairs


def recorded(paths: Iterable[Path], drivers: Sequence[str]) -> list[Pair]:
    """The same from records of earlier runs; UsageError for one without the drivers."""
    pairs = []
    for path in paths:
        file = path / "run.json" if path.is_dir() else path
        finished = past_run.read(file)
        if finished.interrupted:
            note(f"{file} is of a run that was interrupted: its other tests are lost")
        if finished.selection.smoke:
            raise UsageError(f"{file} is of the smoke tests: ./inv test --suite all has all")
        there = {test.driver for test in finished.tests}
        for rust in drivers:
            wanted = {rust, manifest.load(rust).counterpart}
            if not wanted <= there:
                raise UsageError(f"{file} has no tests of {' and '.join(sorted(wanted - there))}")
            pairs.append(pair(finished, file, rust))
    return pairs


def feature_table(pairs: Sequence[Pair]) -> Table:
    """Feature × kernel and driver."""
    heads = [f"{driver}\n{one.kernel}" for one in pairs for driver in (one.c, one.rust)]
    rows: list[Row] = [
        [feature, *(TableCell(state or "-", STYLES.get(state, "")) for state in states)]
        for feature, states in _rows(pairs)
    ]
    return table(["feature", *heads], rows)


def _rows(pairs: Sequence[Pair]) -> list[tuple[str, list[str]]]:
    """Each feature and its states, two per pair; empty where a kernel has none of it."""
    features = sorted({feature for one in pairs for feature in one.features})
    return [
        (
            feature,
            [
                one.features[feature][driver].state if feature in one.features else ""
                for one in pairs
                for driver in (one.c, one.rust)
            ],
        )
        for feature in features
    ]


def summary(one: Pair) -> str:
    """A pair in a few lines."""
    counts = one.counts(one.rust)
    words = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    lines = [
        f"{one.kernel} ({one.release}): of {len(one.features)} features {one.rust} has {words}"
    ]
    if waiting := one.missing():
        first = list(waiting.items())[:5]
        named = ", ".join(f"{feature} ({tests} tests)" for feature, tests in first)
        lines.append(f"  missing, with most tests waiting: {named}")
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
    """docs/parity.md."""
    lines = [HEAD]
    lines += [f"- {summary(one)}" for one in pairs]
    lines += ["", *markdown.lines(feature_table(pairs))]
    for one in pairs:
        told = list(_how(one.features, one.rust))
        if told:
            lines += ["", f"## How {one.rust} differs in {one.kernel}", "", *told]
    return "\n".join(lines) + "\n"


def _how(features: Mapping[str, Mapping[str, Cell]], driver: str) -> Iterable[str]:
    for feature, cells in features.items():
        if cells[driver].state in ("differs", "broken"):
            yield f"- {feature}: {'; '.join(cells[driver].how)}"


def show(
    choices: Sequence[KernelSpec],
    drivers: str,
    records: str,
    *,
    page_file: Path | None,
    as_json: bool,
) -> None:
    """Prints the comparison of these kernels, or of records, and writes its page."""
    rust = rust_drivers(drivers)
    if records:
        pairs = recorded([Path(path) for path in records.split(",") if path], rust)
    else:
        pairs = measure(choices, rust, run.workers())
    if page_file:
        output.write_page(page_file, page(pairs))
    if as_json:
        print(output.as_json(pairs))
        return
    terminal.print_table(feature_table(pairs))
    for one in pairs:
        output.say(summary(one))
