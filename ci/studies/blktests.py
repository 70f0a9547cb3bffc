# SPDX-License-Identifier: GPL-2.0-or-later
"""Upstream blktests in our guests: from a checkout to a run record, and to docs/blktests.md.

Which tests there are is read from the checkout; the run itself is like one of our suites
(`ci.run.run`), with the tests of `tests/blktests` in their place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from blockyard.ci import output
from blockyard.ci.report import markdown, terminal
from blockyard.ci.report.table import Footnotes, table
from blockyard.ci.run import boot_env, collection, exits, record, run, selection
from blockyard.ci.run.selection import Selection
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.blktests import archive, checkout
from blockyard.tests.blktests.checkout import URL, Checkout
from blockyard.tests.harness.outcomes import BAD, CaseResult, worse
from blockyard.tests.harness.upstream import SECONDS, Upstream

PAGE = PROJECT / "docs" / "blktests.md"
DRIVERS = "null_blk,nvme"  # what upstream's tests are written for
LONGEST_S = 3600


@dataclass(frozen=True)
class Wanted:
    """What a user asked for; names are checked by `selected`."""

    tree: str
    names: tuple[str, ...] = ()  # of tests and groups
    driver: str = ""
    console: str = "serial"
    topology: str = "default"
    start: str = "auto"
    seconds: int = SECONDS  # what a test with a time limit takes


def selected(choice: KernelSpec, wanted: Wanted) -> tuple[Checkout, Selection]:
    """The checkout, and what a run of it does; raises UsageError for what is not there."""
    if not wanted.tree:
        raise UsageError("--tree is missing", hint=f"git clone {URL}, and name the folder")
    if not 1 <= wanted.seconds <= LONGEST_S:
        raise UsageError(f"--seconds takes 1 to {LONGEST_S}, not {wanted.seconds}")
    tree = checkout.read(Path(wanted.tree).expanduser())
    outside = plan.out_of_tree(choice)
    drivers = wanted.driver or ("" if outside else DRIVERS)
    of_ours = selection.select(
        drivers, wanted.console, outside=outside, hardware=wanted.topology, start=wanted.start
    )
    tests = tree.chosen(wanted.names)
    upstream = Upstream(
        tests=tests,
        folder=str(tree.folder),
        digest=archive.digest(tree),
        seconds=wanted.seconds,
    )
    return tree, replace(of_ours, suites=(), upstream=upstream)


def listed(wanted: Selection) -> list[str]:
    """The ids of the tests that a run would have; UsageError when there are none."""
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        return [str(one) for one in collection.listing(wanted, Path(folder))]


def done(
    choice: KernelSpec, tree: Checkout, wanted: Selection, accel: str, guests: int
) -> tuple[record.Run, Path]:
    """Runs them; the record and its path."""
    run.check(wanted)
    ready = boot_env.ready(choice, accel, all_modules=False)
    packed = archive.packed(tree, ready.tools)
    assert wanted.upstream is not None
    upstream = msgspec.structs.replace(wanted.upstream, archive=str(packed))
    with_archive = replace(wanted, upstream=upstream)
    return run.run(ready, with_archive, run.workers(guests), choice)


HEAD = """# Upstream blktests

What of [upstream blktests]({url}) runs on which driver, as seen by `./inv blktests --write`. The
checkout is the user's and stays as it is; its helper programs are compiled in the tool root, each
test is run by upstream's own `check` in a guest, and the kernel log is judged by us besides.

    ./inv blktests --tree ~/blktests --driver null_blk,rnull -- block/021 zbd

- A test that is given a disk (upstream's `test_device`) runs on every driver. One that makes its
  own disks runs with null_blk, the group `nvme` with nvme.
- A driver that stands in for null_blk (`counterpart` in its manifest: rnull) has its module and its
  configfs directory put in null_blk's place, in the guest's copy only. Parameters of null_blk's
  module become attributes of disks. A test that asks for an attribute that the driver has not, or
  for a value that it refuses, is skipped, and the attribute is named.
- A test that upstream skips is skipped with upstream's own reason. Helper programs that need
  liburing are not built: the tool root is without. What a test needs and does not look for is in
  `tests/blktests/needs.toml`.
- `check` loses the exit status of a test whose output is as expected; it is kept here, and such a
  test fails. What a test leaves behind ends its guest and is no failure.
- `-x NAME` behind `--` excludes a test or a group, as upstream's own option does.
- `--topology` gives nvme other disks: `zns` a zoned one for the group `zbd`, `metadata` one with
  metadata. `--fragment` adds what a kernel lacks, such as `CONFIG_BLK_DEV_LOOP=m`.
- Each test has a deadline. `--seconds` says how long a test with a time limit of its own takes
  ({seconds} s here; upstream's default is 30).
- The files that a test wrote are kept as `blktests/<group>-<number>-<driver>-<console>.tar` in the
  folder of the run.
"""


def page(finished: record.Run) -> str:
    """docs/blktests.md."""
    drivers = list(dict.fromkeys(test.driver for test in finished.tests))
    by_name: dict[str, dict[str, CaseResult]] = {}
    for test in sorted(finished.tests, key=lambda one: one.id):
        of_test = by_name.setdefault(test.id.partition("/")[2], {})
        before = of_test.setdefault(test.driver, test)  # over another console
        if worse(test.outcome, before.outcome) != before.outcome:
            of_test[test.driver] = test
    ran = {
        name: results
        for name, results in by_name.items()
        if any(test.outcome != "skip" for test in results.values())
    }
    rest = [
        test for name, results in by_name.items() if name not in ran for test in results.values()
    ]
    kernel = finished.kernel
    digest = finished.upstream.digest if finished.upstream else ""
    lines = [
        HEAD.format(url=URL, seconds=SECONDS),
        f"Run {finished.started[:10]} on kernel {kernel.name} ({kernel.release}), "
        f"{finished.accelerator.name}, checkout {digest}.\n",
        *_totals(finished, drivers),
        "\n## What runs\n\nAn empty cell: the test is not for that driver. Numbers are reasons.\n",
        *_table(ran, drivers),
        "\n## What runs on none of them\n",
        *_reasons(rest),
    ]
    return "\n".join(lines) + "\n"


def _totals(finished: record.Run, drivers: Sequence[str]) -> list[str]:
    outcomes = list(dict.fromkeys(test.outcome for test in finished.tests))
    head = ["driver", *outcomes]
    rows = [[name, *(str(finished.count(name)[one]) for one in outcomes)] for name in drivers]
    return markdown.simple(head, rows)


def _table(ran: dict[str, dict[str, CaseResult]], drivers: Sequence[str]) -> list[str]:
    notes = Footnotes()

    def cell(test: CaseResult | None) -> str:
        if test is None:
            return ""
        said = f"**{test.outcome}**" if test.outcome in BAD else test.outcome
        if not test.reason:
            return said
        return f"{said} {notes.mark(_brief(test))}"

    head = ["test", *drivers]
    rows = [[name, *(cell(results.get(one)) for one in drivers)] for name, results in ran.items()]
    return markdown.lines(table(head, rows, notes.lines()))


def _reasons(tests: Sequence[CaseResult]) -> list[str]:
    """One row per reason and the drivers that it holds for: which tests it keeps from running."""
    drivers: dict[tuple[str, str], list[str]] = {}
    for test in tests:
        key = _brief(test), test.id.partition("/")[2]
        drivers.setdefault(key, []).append(test.driver)
    names: dict[tuple[str, str], list[str]] = {}
    for (reason, name), of_test in drivers.items():
        names.setdefault((", ".join(dict.fromkeys(of_test)), reason), []).append(name)
    rows = [[who, reason, ", ".join(found)] for (who, reason), found in names.items()]
    return markdown.simple(["driver", "reason", "tests"], rows)


def _brief(test: CaseResult) -> str:
    """The first of upstream's reasons, or the first line of a failure: the record has them all."""
    if test.skip:
        return f"{test.skip.text} and {test.skip.more} more" if test.skip.more else test.skip.text
    return test.reason.partition("\n")[0]


def show(
    choice: KernelSpec,
    wanted: Wanted,
    accel: str,
    guests: int,
    *,
    page_file: Path | None,
    as_json: bool,
) -> None:
    """Runs the tests, prints the report and ends the command with the run's exit code."""
    tree, chosen = selected(choice, wanted)
    listed(chosen)  # what cannot be is told before anything is built
    record.check_place()
    with exits.untestable():
        finished, path = done(choice, tree, chosen, accel, guests)
    if page_file:
        output.write_page(page_file, page(finished))

    def answer() -> None:
        print(output.as_json(finished)) if as_json else terminal.show(finished, path)

    exits.end(exits.of_run(finished), answer)
