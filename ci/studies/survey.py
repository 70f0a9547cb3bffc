# SPDX-License-Identifier: GPL-2.0-or-later
"""Which kernel can do what: each one fetched, built, booted and tested, and told as one table.

Every cell comes from something that was done: a cell of a driver from the run record, the rest
from the kernel's own folder. A kernel that fails is a row with the reason, and the next one goes
on.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from blockyard.ci import output
from blockyard.ci.report import markdown
from blockyard.ci.report.table import Footnotes, Table, table
from blockyard.ci.run import boot_env, record, run, selection
from blockyard.images.boot import boot
from blockyard.images.machine import accelerator
from blockyard.kernel import catalog, sources
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.host import gc, store
from blockyard.kernel.host.debian import tool_root
from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.settings import PROJECT
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.harness.outcomes import BAD, OUTCOMES, Outcome

EXAMPLES = PROJECT / "modules" / "examples"
PAGE = PROJECT / "docs" / "kernels.md"
DATA = PAGE.with_suffix(".json")  # its rows: a kernel that is surveyed anew leaves the others'
CONSOLE = "serial"  # what a driver does depends on the kernel, not on how it is asked
REASON_LETTERS = 200  # of a failure that are told
STAGES = ("fetched", "built", "booted", "tested")


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one driver on one kernel."""

    outcomes: dict[Outcome, int] = {}  # how many tests
    reason: str = ""  # why there are none but skips
    bad: dict[str, str] = {}  # test that failed, crashed, timed out or was lost → why


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel."""

    kernel: str  # as a user names it
    date: str  # of the run, UTC
    reached: tuple[str, ...] = ()  # of STAGES
    problem: str = ""  # what kept it from the next stage
    release: str = ""  # uname -r
    source: str = ""
    rust: str = ""  # "yes", or why not
    cpu_min: float = 0.0  # user and system time of the build; 0 when nothing was built
    size_mib: int = 0  # kernel, modules and what building modules needs
    accelerator: str = ""
    drivers: dict[str, Driver] = {}


def survey(choices: Sequence[KernelSpec], accel: str, workers: int) -> tuple[Row, ...]:
    """Does it all, one kernel after the other; raises UsageError for an unknown accelerator."""
    accelerator.check(accel)  # a typo of the command; what fails below is the kernel's
    rows = []
    for number, choice in enumerate(choices, start=1):
        note(f"[{number}/{len(choices)}] kernel {choice.name}")
        rows.append(_row(choice, accel, workers))
    return tuple(rows)


def _row(choice: KernelSpec, accel: str, workers: int) -> Row:
    row = Row(kernel=choice.name, date=time.strftime("%Y-%m-%d", time.gmtime()))
    steps: list[Callable[[Row], Row]] = [
        lambda row: _fetch(choice, row),
        lambda row: _build(choice, row),
        lambda row: _boot(choice, accel, row),
        lambda row: _test(choice, accel, workers, row),
    ]
    for step in steps:
        try:
            row = step(row)
        except BlockyardError as error:  # also UsageError: a directory or a ref that is gone
            problem = str(error).splitlines()[0]
            note(f"kernel {choice.name}: {error}")
            return msgspec.structs.replace(row, problem=problem)
    return row


def _fetch(choice: KernelSpec, row: Row) -> Row:
    tree = sources.files(choice.kernel, catalog.find(choice.kernel), tool_root())
    return msgspec.structs.replace(row, reached=STAGES[:1], source=str(tree.origin))


def _build(choice: KernelSpec, row: Row) -> Row:
    built = plan.kernel(choice, tool_root())
    return msgspec.structs.replace(
        row,
        reached=STAGES[:2],
        release=built.info.release,
        rust=_rust(built),
        cpu_min=round(built.info.cpu_s / 60, 1),
        size_mib=size_mib(built.path, store.directory("builds") / built.info.key),
    )


def _rust(kernel: Kernel) -> str:
    if kernel.config.get("RUST") == "y":
        return "yes"
    return kernel.info.omitted.get("Rust", "CONFIG_RUST is off in its configuration")


def size_mib(*folders: Path) -> int:
    """What folders take on the disk."""
    return sum(map(gc.size, folders)) >> 20


def _boot(choice: KernelSpec, accel: str, row: Row) -> Row:
    ready = boot_env.ready(choice, accel, all_modules=False)
    with boot_env.guest_directory() as folder, boot(ready.setup(folder)) as guest:
        guest.serial.check("true")
    name = ready.accelerator.name
    return msgspec.structs.replace(row, reached=STAGES[:3], accelerator=name)


def _test(choice: KernelSpec, accel: str, workers: int, row: Row) -> Row:
    ready = boot_env.ready(choice, accel, all_modules=False)
    outside = plan.out_of_tree(choice)
    names = [*selection.select().scope.drivers, *(one.name for one in outside)]
    wanted = selection.select(",".join(names), CONSOLE, outside=outside)
    finished, _ = run.run(ready, selection.with_carried(wanted, ready.kernel), workers, choice)
    tested = dict.fromkeys(test.driver for test in finished.tests)
    drivers = {name: driver(finished, name) for name in (*names, *tested)}
    return msgspec.structs.replace(row, reached=STAGES, drivers=drivers)


def driver(finished: record.Run, name: str) -> Driver:
    """What a run says of one driver."""
    tests = [test for test in finished.tests if test.driver == name]
    outcomes = finished.count(name)
    reasons = {test.reason for test in tests}
    nothing_ran = set(outcomes) == {"skip"} and len(reasons) == 1
    return Driver(
        outcomes=dict(outcomes),
        reason=reasons.pop() if nothing_ran else "",
        bad={
            test.id: textwrap.shorten(test.reason, REASON_LETTERS)
            for test in tests
            if test.outcome in BAD
        },
    )


def survey_table(rows: Sequence[Row]) -> Table:
    """Kernel × stages and drivers, with the reasons below it."""
    names = list(dict.fromkeys(name for row in rows for name in row.drivers))
    head = ["kernel", "release", *STAGES, "Rust", *names, "CPU min", "MiB"]
    notes = Footnotes()
    lines = []
    for row in rows:
        stages = ["yes" if stage in row.reached else "no" for stage in STAGES]
        if row.problem:
            stages[stages.index("no")] = f"no {notes.mark(row.problem)}"
        rust = row.rust if row.rust in ("", "yes") else f"no {notes.mark(row.rust)}"
        cells = [_cell(row.drivers.get(name), notes) for name in names]
        costs = [f"{row.cpu_min:.1f}" if row.cpu_min else "-", str(row.size_mib or "-")]
        lines.append([row.kernel, row.release, *stages, rust, *cells, *costs])
    return table(head, lines, notes.lines())


def _cell(driver: Driver | None, notes: Footnotes) -> str:
    if driver is None or not driver.outcomes:
        return ""
    if driver.reason:
        return f"no {notes.mark(driver.reason)}"
    found = ((outcome, driver.outcomes.get(outcome, 0)) for outcome in OUTCOMES)
    counts = ", ".join(
        f"**{count} {outcome}**" if outcome in BAD else f"{count} {outcome}"
        for outcome, count in found
        if count
    )
    marks = [notes.mark(f"{test}: {why}") for test, why in driver.bad.items()]
    return " ".join([counts, *marks])


HEAD = """\
<!-- generated by `./inv kernel.survey --write`, do not edit -->

# Kernels

What works on which kernel. Each kernel was fetched, built and booted, and every suite ran on
every driver, those of modules/examples included, over the serial console. A driver's cell counts
its tests by outcome (xfail: a known failure). The reason for what is missing or failed is below.
CPU minutes are user and system time of the build. MiB is the kernel's size in the cache without
its source: image, modules, and what modules outside the tree are built against.
"""


def page(rows: Sequence[Row]) -> str:
    """docs/kernels.md."""
    dates = sorted({row.date for row in rows})
    accelerators = sorted({row.accelerator for row in rows if row.accelerator})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    lines = "\n".join(markdown.lines(survey_table(rows)))
    return f"{HEAD}\nRun {when} with {' and '.join(accelerators)}.\n\n{lines}\n"


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows that an earlier survey wrote; none when there was none."""
    if not path.exists():
        return ()
    return msgspec.json.decode(path.read_bytes(), type=tuple[Row, ...])


def joined(earlier: Sequence[Row], rows: Sequence[Row]) -> tuple[Row, ...]:
    """Each kernel's newest row: those of the catalog in its order, then the others."""
    newest = {row.kernel: row for row in (*earlier, *rows)}
    order = [name for name in catalog.catalog() if name in newest]
    return tuple(newest[name] for name in dict.fromkeys([*order, *newest]))


def show(
    kernels: Sequence[str], accel: str, guests: int, *, page_file: Path | None, as_json: bool
) -> None:
    """Surveys kernels, all of the catalog when none is named."""
    names = kernels or catalog.catalog()
    examples = tuple(sorted(path.parent for path in EXAMPLES.glob("*/manifest.toml")))
    choices = [KernelSpec(name, modules=examples).checked() for name in names]
    rows = survey(choices, accel, run.workers(guests))
    if page_file == PAGE:
        everything = joined(read_rows(DATA), rows)
        store.write(DATA, output.as_json(everything).encode() + b"\n")
        output.write_page(PAGE, page(everything))
    elif page_file:
        output.write_page(page_file, page(rows))
    if as_json:
        print(output.as_json(rows))
    else:
        output.say("\n".join(markdown.lines(survey_table(rows))))
