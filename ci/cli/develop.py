# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands for developers of Blockyard; most need a checkout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.exceptions import Exit

from blockyard.ci.cli import options
from blockyard.ci.cli.command import Group, Words, command

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec


@command(
    "dev.check",
    Group.DEVELOP,
    "check",
    "check --unit -k console",
    "check --hostile",
    help={
        "unit": ("", "only the tests that need no guest"),
        "faults": ("", "only tests of guests that break; writes docs/reliability.md"),
        "hostile": ("", "only attacks on the build sandbox; prints what stopped each"),
    },
    ends={0: "all checks passed", 1: "a check failed; the last line names it"},
)
def check(
    c: Context, unit: bool = False, faults: bool = False, hostile: bool = False, k: str = ""
) -> None:
    """Check Blockyard itself: linters, mypy, tests, guests."""
    from blockyard.ci.commands import check as checks
    from blockyard.kernel.host import environment

    environment.mention_ignored()
    failed = checks.run(unit=unit, faults=faults, hostile=hostile, k=k)
    if failed:
        raise Exit(f"failed: {'; '.join(failed)}", 1)


@command(
    "dev.mutants",
    Group.DEVELOP,
    "dev.mutants --driver rnull",
    "dev.mutants --only zone --suite zoned",
    help={
        "driver": ("NAMES", "default: all with mutants in tests/mutants"),
        "only": ("PATTERN", "only mutants whose names contain this text or match it, with * and ?"),
        "suite": ("NAMES", "default: all of tests/suites"),
        "kernel": options.KERNEL["kernel"],
        "all_": ("", "run every test on every mutant; lists tests that catch none"),
        "write": ("", "write the table to docs/mutants.md"),
    },
    ends={0: "every bug was caught", 1: "a bug was missed"},
)
def mutants(
    c: Context,
    driver: Words = (),
    only: str = "",
    suite: Words = (),
    kernel: Words = (),
    all_: bool = False,
    guests: int = 0,
    accel: str = "auto",
    write: bool = False,
    output: str = "",
    json: bool = False,
) -> None:
    """Plant bugs in drivers; show which test catches each.

    Builds only the driver again, not the kernel.
    """
    from blockyard.ci.output import page_file
    from blockyard.ci.run import run, selection
    from blockyard.ci.studies import mutants_report
    from blockyard.ci.studies.mutants import Conditions
    from blockyard.ci.studies.mutants import mutants as select_mutants
    from blockyard.kernel import catalog, commas
    from blockyard.kernel.host.errors import UsageError

    suites = ",".join(suite)
    selection.select(suite=suites)  # checked before anything is built
    if write and (driver or only or suite):
        raise UsageError(
            "--write needs all mutants and suites",
            hint="leave out --driver, --only and --suite; --output FILE writes part of the table",
        )
    page = page_file(mutants_report.PAGE, write=write, output=output)
    name = commas.one_kernel(kernel, "dev.mutants") or catalog.DEFAULT
    conditions = Conditions(name, accel, run.workers(guests), suites, all_)
    selected = select_mutants(",".join(driver), only)
    if not mutants_report.show(selected, conditions, page_file=page, as_json=json):
        raise Exit(code=1)


@command(
    "dev.selfbench",
    Group.DEVELOP,
    "dev.selfbench --what boot,test",
    "dev.selfbench --what blktests --tree ~/blktests --runs 3",
    on_a_kernel=True,
    help={
        "what": (
            "NAMES",
            "warm-build, boot (these are the default), boot-plain, snapshot, build, test, "
            "cold-test, round-trip-serial, round-trip-ssh, output, memory, fleet, virtme-ng, "
            "labgrid, blktests",
        ),
        "tree": ("DIR", "for blktests: a checkout of it"),
        "runs": ("N", "runs of each measurement; the report has medians"),
    },
)
def selfbench(
    c: Context,
    spec: KernelSpec,
    accel: str = "auto",
    what: Words = (),
    tree: str = "",
    runs: int = 5,
    json: bool = False,
) -> None:
    """Measure Blockyard against bare make, QEMU and peers."""
    from blockyard.ci import selfbench as measure

    measure.show(measure.measure(spec, accel, ",".join(what), runs, tree), as_json=json)


@command(
    "dev.docs",
    Group.DEVELOP,
    "dev.docs",
    "dev.docs --table topologies",
    "dev.docs --run --only doctor",
    help={
        "table": ("NAME", "print this table and write nothing"),
        "run": ("", "also run the commands of transcripts and docs/run.svg, which boot guests"),
        "only": ("TEXT", "with --run: commands that contain this text"),
    },
    results="README.md and docs/, in the checkout.",
)
def docs(c: Context, table: str = "", run: bool = False, only: str = "") -> None:
    """Update the generated parts of README.md and docs/."""
    from blockyard.ci import output
    from blockyard.ci.commands import docs as pages

    if table:
        output.say(pages.table(table).rstrip())
        return
    pages.update(run=run, pattern=only)


@command(
    "dev.graph",
    Group.DEVELOP,
    "dev.graph",
    "dev.graph --checkout ../before --output before.svg",
    help={
        "checkout": ("DIR", "draw this checkout's imports; default: this one's"),
        "output": ("FILE", "the SVG file to write"),
    },
)
def graph(c: Context, checkout: str = "", output: str = "docs/imports.svg") -> None:
    """Draw which folder imports which, as an SVG.

    Import cycles are red.
    """
    from blockyard.ci.commands import check as checks

    checks.draw_imports(checkout, output)
