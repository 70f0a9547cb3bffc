# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that compare: drivers with drivers, kernels with kernels, our tests with upstream's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context

from blockyard.ci.cli import options
from blockyard.ci.cli.command import Group, Words, command

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec


@command(
    "parity",
    Group.COMPARE,
    "parity --kernel 7.3,7.2",
    "parity --kernel ~/linux#my-branch --driver rnull",
    "parity --record results/latest --json",
    help={
        "kernel": options.SEVERAL_KERNELS,
        "driver": ("NAMES", "Rust drivers; default: all in Linux"),
        "record": ("PATHS", "compare results of earlier runs: folders or run.json"),
        "write": ("", "write the table to docs/parity.md"),
    },
    ends={0: "the comparison was made, whatever it shows"},
)
def parity(
    c: Context,
    kernel: Words = (),
    driver: Words = (),
    variant: str = "plain",
    record: Words = (),
    write: bool = False,
    output: str = "",
    json: bool = False,
) -> None:
    """Compare Rust drivers with their C counterparts.

    Runs the suites on both drivers (quick, serial console). The table shows for each kernel and
    feature what differs, is missing or is broken, and which missing features most tests wait for.
    """
    from blockyard.ci.output import page_file
    from blockyard.ci.studies import parity as comparison
    from blockyard.kernel import commas
    from blockyard.kernel.spec import KernelSpec

    page = page_file(comparison.PAGE, write=write, output=output)
    names = commas.kernels(kernel) or [KernelSpec().kernel]
    specs = [KernelSpec(name, variant=variant).checked() for name in names]
    comparison.show(specs, ",".join(driver), ",".join(record), page_file=page, as_json=json)


@command(
    "blktests",
    Group.COMPARE,
    "blktests --tree ~/blktests -- block/021",
    "blktests --tree ~/blktests --driver null_blk,rnull -- block zbd -x zbd/010",
    "blktests --tree ~/blktests --list",
    on_a_kernel=True,
    words="TEST... [-x TEST]",
    help={
        "tree": ("DIR", "a checkout of upstream blktests; it is not changed"),
        "driver": ("NAMES", "default: null_blk and nvme; rnull runs the tests of null_blk"),
        "console": ("NAMES", "serial (the default), ssh or both"),
        "seconds": ("S", "run time of tests that have a time limit, in seconds"),
        "write": ("", "write the table of tests and drivers to docs/blktests.md"),
        "json": ("", "print the run record instead of the report"),
    },
    ends={
        0: "every test that could run passed, or failed as known",
        1: "a test failed, crashed, timed out or was lost",
        125: "nothing could be tested: no kernel, no guest, or every test was skipped",
    },
    results="results/latest/run.json, as for test.",
)
def blktests(
    c: Context,
    spec: KernelSpec,
    words: tuple[str, ...],
    tree: str = "",
    driver: Words = (),
    console: Words = (),
    list_: bool = False,
    seconds: int = 10,
    topology: str = "default",
    start: str = "auto",
    accel: str = "auto",
    guests: int = 0,
    write: bool = False,
    output: str = "",
    json: bool = False,
) -> None:
    """Run upstream's blktests, unchanged, in guests.

    Name groups or single tests after `--`; the default is all except upstream's tests of itself
    (group meta). `-x NAME` there excludes a test or a group.
    """
    from blockyard.ci.output import page_file, say
    from blockyard.ci.studies import blktests as upstream

    page = page_file(upstream.PAGE, write=write, output=output)
    request = upstream.Options(
        tree, words, ",".join(driver), ",".join(console) or "serial", topology, start, seconds
    )
    if list_:
        say("\n".join(upstream.test_ids(upstream.selected(spec, request)[1])))
        return
    upstream.show(spec, request, accel, guests, page_file=page, as_json=json)


@command(
    "kernel.survey",
    Group.COMPARE,
    "kernel.survey --kernel 7.3,6.12",
    "kernel.survey --json",
    help={
        "kernel": (options.SEVERAL_KERNELS[0], "default: all of the catalog"),
        "write": ("", "write the table to docs/kernels.md; rows of other kernels are kept"),
    },
    ends={0: "the table was made, whatever it shows"},
)
def survey(
    c: Context,
    kernel: Words = (),
    accel: str = "auto",
    guests: int = 0,
    write: bool = False,
    output: str = "",
    json: bool = False,
) -> None:
    """Build and test kernels: what works on which."""
    from blockyard.ci.output import page_file
    from blockyard.ci.studies import survey as table
    from blockyard.kernel import commas

    page = page_file(table.PAGE, write=write, output=output)
    table.show(commas.kernels(kernel), accel, guests, page_file=page, as_json=json)
