# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv kernel.survey`: fetches, builds, boots and tests kernels; makes one table of the results.

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
DATA = PAGE.with_suffix(".json")  # rows of all kernels; a survey replaces those of its kernels
CONSOLE = "serial"  # one is enough: outcomes depend on the kernel, not on the console
REASON_LETTERS = 200  # characters kept of a failure's reason
STAGES = ("fetched", "built", "booted", "tested")


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a driver on a kernel."""

    outcomes: dict[Outcome, int] = {}  # outcome → number of tests
    reason: str = ""  # why all tests were skipped
    bad: dict[str, str] = {}  # bad test → reason


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Results of a kernel: a row of the table."""

    kernel: str  # its name
    date: str  # of the run, UTC
    reached: tuple[str, ...] = ()  # of STAGES
    problem: str = ""  # why the next stage failed
    release: str = ""  # uname -r
    source: str = ""
    rust: str = ""  # "yes", or why not
    cpu_min: float = 0.0  # user and system time of the build; 0 when nothing was built
    size_mib: int = 0  # kernel, modules, and the tree for building modules
    accelerator: str = ""
    drivers: dict[str, Driver] = {}


def survey(specs: Sequence[KernelSpec], accel: str, workers: int) -> tuple[Row, ...]:
    """Surveys the kernels one by one; raises UsageError for an unknown accelerator.

    A kernel whose build or boot fails gets a row with the problem.
    """
    accelerator.check(accel)  # a usage error ends the survey; later errors only end a row
    rows = []
    for number, spec in enumerate(specs, start=1):
        note(f"[{number}/{len(specs)}] kernel {spec.name}")
        rows.append(_row(spec, accel, workers))
    return tuple(rows)


def _row(spec: KernelSpec, accel: str, workers: int) -> Row:
    row = Row(kernel=spec.name, date=time.strftime("%Y-%m-%d", time.gmtime()))
    steps: list[Callable[[Row], Row]] = [
        lambda row: _fetch(spec, row),
        lambda row: _build(spec, row),
        lambda row: _boot(spec, accel, row),
        lambda row: _test(spec, accel, workers, row),
    ]
    for step in steps:
        try:
            row = step(row)
        except BlockyardError as error:  # UsageError, too: for a missing directory or ref
            problem = str(error).splitlines()[0]
            note(f"kernel {spec.name}: {error}")
            return msgspec.structs.replace(row, problem=problem)
    return row


def _fetch(spec: KernelSpec, row: Row) -> Row:
    tree = sources.files(spec.kernel, catalog.find(spec.kernel), tool_root())
    return msgspec.structs.replace(row, reached=STAGES[:1], source=str(tree.origin))


def _build(spec: KernelSpec, row: Row) -> Row:
    built = plan.kernel(spec, tool_root())
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
    """Size of folders on disk, in MiB."""
    return sum(map(gc.size, folders)) >> 20


def _boot(spec: KernelSpec, accel: str, row: Row) -> Row:
    env = boot_env.ready(spec, accel, all_modules=False)
    with boot_env.guest_directory() as folder, boot(env.setup(folder)) as guest:
        guest.serial.check("true")
    name = env.accelerator.name
    return msgspec.structs.replace(row, reached=STAGES[:3], accelerator=name)


def _test(spec: KernelSpec, accel: str, workers: int, row: Row) -> Row:
    env = boot_env.ready(spec, accel, all_modules=False)
    out_of_tree = plan.out_of_tree(spec)
    names = [*selection.select().scope.drivers, *(module.name for module in out_of_tree)]
    selected = selection.select(",".join(names), CONSOLE, outside=out_of_tree)
    finished, _ = run.run(env, selection.with_carried(selected, env.kernel), workers, spec)
    tested = dict.fromkeys(test.driver for test in finished.tests)
    drivers = {name: driver(finished, name) for name in (*names, *tested)}
    return msgspec.structs.replace(row, reached=STAGES, drivers=drivers)


def driver(finished: record.Run, name: str) -> Driver:
    """The results of a driver in a run."""
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
    """A row per kernel: stages, results per driver, cost; reasons as footnotes."""
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
    counted = ((outcome, driver.outcomes.get(outcome, 0)) for outcome in OUTCOMES)
    counts = ", ".join(
        f"**{count} {outcome}**" if outcome in BAD else f"{count} {outcome}"
        for outcome, count in counted
        if count
    )
    marks = [notes.mark(f"{test}: {why}") for test, why in driver.bad.items()]
    return " ".join([counts, *marks])


HEAD = """\
<!-- generated by `./inv kernel.survey --write`, do not edit -->

# Kernels

What works on which kernel. Each kernel was fetched, built and booted, and every suite ran on
every driver, those of modules/examples included, over the serial console. A driver's cell counts
its tests by outcome (xfail: a known failure). Reasons for failures and missing drivers are below.
CPU minutes are user and system time of the build. MiB is the kernel's size in the cache without
its source: image, modules, and what modules outside the tree are built against.
"""


def page(rows: Sequence[Row]) -> str:
    """The text of docs/kernels.md."""
    dates = sorted({row.date for row in rows})
    accelerators = sorted({row.accelerator for row in rows if row.accelerator})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    lines = "\n".join(markdown.lines(survey_table(rows)))
    return f"{HEAD}\nRun {when} with {' and '.join(accelerators)}.\n\n{lines}\n"


def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of earlier surveys; empty when the file does not exist."""
    if not path.exists():
        return ()
    return msgspec.json.decode(path.read_bytes(), type=tuple[Row, ...])


def joined(earlier: Sequence[Row], rows: Sequence[Row]) -> tuple[Row, ...]:
    """The newest row of each kernel: first those of the catalog, in its order."""
    newest = {row.kernel: row for row in (*earlier, *rows)}
    order = [name for name in catalog.catalog() if name in newest]
    return tuple(newest[name] for name in dict.fromkeys([*order, *newest]))


def show(
    kernels: Sequence[str], accel: str, guests: int, *, page_file: Path | None, as_json: bool
) -> None:
    """Surveys kernels (no names: all of the catalog), prints the table, writes the page."""
    names = kernels or catalog.catalog()
    examples = tuple(sorted(path.parent for path in EXAMPLES.glob("*/manifest.toml")))
    specs = [KernelSpec(name, modules=examples).checked() for name in names]
    rows = survey(specs, accel, run.workers(guests))
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
