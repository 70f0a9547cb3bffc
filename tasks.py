# SPDX-License-Identifier: GPL-2.0-or-later
"""Blockyard's commands. Each task reads its arguments, calls one function, prints the answer.

Heavy imports stand inside the tasks: `./inv --list` has to answer at once.
"""

from __future__ import annotations

import functools
import gc
import inspect
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec

# With Python's default of 700 the collector runs a hundred times while modules are imported, and
# finds nothing: 10 ms.
gc.set_threshold(50_000)

TAKES_REMAINDER = {"blktests"}  # tasks that take what stands behind --
DEFAULT_KERNEL = "7.3"  # kernel.catalog.DEFAULT, which is too slow to import for --list
# the options that say which kernel, and built how: name → default, help
KERNEL_OPTIONS = {
    "kernel": (DEFAULT_KERNEL, "a name (./inv kernel.list), DIRECTORY, REPOSITORY#REF or tarball"),
    "variant": (
        "plain",
        "plain, debug, faults, kasan, ubsan, symbols or big (kernel/fragments/variants)",
    ),
    "fragment": ("", "comma-separated paths of Kconfig fragments of your own; the last one wins"),
    "toolchain": ("root", "root (Debian's compilers, the same everywhere) or host (those on PATH)"),
    "compiler": ("llvm", "llvm or gcc"),
    "module": ("", "comma-separated folders of modules outside the tree (modules/examples)"),
    "series": ("", "comma-separated patch series for the tree: a folder, an mbox or one patch"),
    "series_version": ("", "which version of the series, where a thread has several: a number"),
}
KERNEL_HELP = {name.replace("_", "-"): text for name, (_, text) in KERNEL_OPTIONS.items()}
TOPOLOGY_HELP = "the guest's hardware: a name in images/topologies, or a TOML file of yours"
START_HELP = (
    "boot; snapshot (of a guest that has booted); fastest: a snapshot where that is quicker"
)
ACCEL_HELP = "auto (KVM where it really works), kvm or tcg"


def plain_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """A user's error is one message and an exit code (ci/run/exits.py), not a traceback."""

    @functools.wraps(function)
    def wrapper(c: Context, *arguments: Any, **options: Any) -> None:
        from blockyard.ci.run import exits

        def work() -> None:
            from blockyard.kernel.host.errors import UsageError

            if c.remainder and function.__name__ not in TAKES_REMAINDER:
                raise UsageError(f"{function.__name__} takes nothing behind --: {c.remainder}")
            function(c, *arguments, **options)

        if code := exits.code_of(work):
            raise Exit(code=code)

    return wrapper


def on_a_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of KERNEL_OPTIONS; the function gets them as one `KernelSpec`."""

    @functools.wraps(function)
    def wrapper(c: Context, *arguments: Any, **options: Any) -> Any:
        from blockyard.kernel.spec import KernelSpec, numbered, paths

        chosen = {name: options.pop(name, default) for name, (default, _) in KERNEL_OPTIONS.items()}
        fragments, modules, series = (
            paths(chosen.pop(name)) for name in ("fragment", "module", "series")
        )
        version = numbered("--series-version", chosen.pop("series_version"))
        choice = KernelSpec(
            fragments=fragments, modules=modules, series=series, series_version=version, **chosen
        )
        return function(c, choice, *arguments, **options)

    context, _, *own = inspect.signature(function).parameters.values()
    added = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for name, (default, _) in KERNEL_OPTIONS.items()
    ]
    needed = [one for one in own if one.default is one.empty]
    others = [one for one in own if one.default is not one.empty]
    parameters = [context, *needed, *added, *others]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return wrapper


@task(
    optional=["resume"],
    help=KERNEL_HELP
    | {
        "driver": "comma-separated; default: all that have a manifest in modules/",
        "console": "serial, ssh or both (the default)",
        "suite": "comma-separated, or all; default: smoke, the first tests of each (all with -k)",
        "k": "only tests whose names match, as pytest's -k",
        "list": "print the ids of the tests and run nothing",
        "topology": TOPOLOGY_HELP,
        "start": START_HELP,
        "accel": ACCEL_HELP,
        "guests": "how many guests run side by side; 0: one per two CPUs, at least two",
        "quick": "loads and repetitions take a quarter of the time",
        "long": "they take ten times as long",
        "seed": "a number: the tests of each guest in another order, the same for the same number",
        "resume": "go on with a run that was interrupted or killed: its name in results, or "
        "the newest one with the same options",
        "json": "print the run record instead of the report",
        "trust-tests": "run a module's own test files without a sandbox, with all your rights",
    },
)
@plain_errors
@on_a_kernel
def test(
    c: Context,
    choice: KernelSpec,
    driver: str = "",
    console: str = "",
    suite: str = "",
    k: str = "",
    list_: bool = False,
    topology: str = "default",
    start: str = "fastest",
    accel: str = "auto",
    guests: int = 0,
    quick: bool = False,
    long: bool = False,
    seed: str = "",
    resume: str = "",
    json: bool = False,
    trust_tests: bool = False,
) -> None:
    """Build a kernel, boot it, test its block drivers over both consoles.

    The first run sets everything up (about ten minutes on two cores), a later one takes about
    a minute and a half: it has the smoke tests, those that show first whether a driver works.
    `--suite all` has all, and takes about six. The record is written to results/latest/run.json;
    the exit code is 0 only if no test failed, crashed, timed out or was lost; 1 if one did, 125
    if nothing could be tested (README.md has them all).
    """
    import tempfile
    from pathlib import Path

    from blockyard.ci import output
    from blockyard.ci.report import terminal
    from blockyard.ci.run import collection, exits, prepare, run, selection
    from blockyard.ci.run import resume as resumption

    outside, workers = prepare.out_of_tree(choice), run.workers(guests)
    spend = selection.budget_named(quick=quick, long=long)
    suite = suite or ("all" if k else selection.SMOKE)
    wanted = selection.select(driver, console, suite, k, outside, topology, start, spend, seed)
    wanted = selection.trusting(wanted, trust=trust_tests)
    # the choice is checked before anything is built
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        listing = collection.listing(wanted, Path(folder))
    if list_:
        output.say("\n".join(str(one) for one in listing))
        return
    asked = resumption.asked(choice, wanted)
    # invoke gives True for an option without its value
    which = resumption.LATEST if resume is True else resume  # type: ignore[comparison-overlap]
    earlier = resumption.find(which, asked) if which else None
    run.check(wanted)
    with exits.untestable():
        ready = prepare.ready(choice, accel, all_modules=False)
    if not driver and not choice.modules:
        wanted = selection.with_carried(wanted, ready.kernel)
    finished, path = run.run(ready, wanted, workers, choice.variant, asked=asked, earlier=earlier)

    def show() -> None:
        print(output.as_json(finished)) if json else terminal.show(finished, path)

    exits.end(exits.of_run(finished), show)


@task(
    help=KERNEL_HELP
    | {
        "tree": "a checkout of upstream blktests; it is not written to",
        "driver": "comma-separated; default: null_blk and nvme. rnull stands in for null_blk",
        "console": "serial, ssh or both",
        "list": "print the ids of the tests and run nothing",
        "seconds": "what a test with a time limit of its own takes",
        "topology": TOPOLOGY_HELP,
        "start": START_HELP,
        "accel": ACCEL_HELP,
        "guests": "how many guests run side by side; 0: one per two CPUs, at least two",
        "write": "write what runs on what to docs/blktests.md",
        "json": "print the run record instead of the report",
    }
)
@plain_errors
@on_a_kernel
def blktests(
    c: Context,
    choice: KernelSpec,
    tree: str = "",
    driver: str = "",
    console: str = "serial",
    list_: bool = False,
    seconds: int = 10,
    topology: str = "default",
    start: str = "fastest",
    accel: str = "auto",
    guests: int = 0,
    write: bool = False,
    json: bool = False,
) -> None:
    """Run upstream blktests in guests: ./inv blktests --tree DIR -- block/021 zbd

    Groups or single tests stand behind `--`; without any, all but upstream's tests of itself.
    `-x NAME` there excludes a test or a group.
    Record and exit code are as those of ./inv test.
    """
    from blockyard.ci import output
    from blockyard.ci.studies import blktests as upstream

    names = tuple(c.remainder.split())
    wanted = upstream.Wanted(tree, names, driver, console, topology, start, seconds)
    if list_:
        output.say("\n".join(upstream.listed(upstream.selected(choice, wanted)[1])))
        return
    upstream.show(choice, wanted, accel, guests, write=write, as_json=json)


@task(
    help=KERNEL_HELP
    | {
        "json": "print kernel.json instead of one line",
    }
)
@plain_errors
@on_a_kernel
def build(c: Context, choice: KernelSpec, json: bool = False) -> None:
    """Build a kernel with the block drivers, or take it from the cache."""
    from blockyard.ci.output import say
    from blockyard.ci.run import prepare
    from blockyard.kernel.host.debian import tool_root
    from blockyard.kernel.host.progress import printable_json

    prepare.out_of_tree(choice)
    tools = tool_root()
    built = prepare.kernel(choice, tools)
    modules = prepare.modules(choice, built, tools, all_=True)
    if json:
        print(printable_json((built.path / "kernel.json").read_text()), end="")
    else:
        say(f"{built.info.release}  {built.info.source}  {built.path}")
        for module in [file for folder in modules for file in folder.glob("*.ko")]:
            say(f"{module.stem}  {module}")


@task(
    positional=["folder"],
    help={
        "folder": "of the sources of a module outside the kernel tree",
        "dry-run": "only print what would be written",
    },
)
@plain_errors
def init(c: Context, folder: str, dry_run: bool = False) -> None:
    """Write a manifest for a module outside the kernel tree, from what its sources show."""
    from blockyard.kernel.host.errors import UsageError
    from blockyard.kernel.host.settings import user_path
    from blockyard.modules import draft

    if not folder:
        raise UsageError("no folder is named", hint="./inv init DIR; . is the current one")
    place = user_path(folder, "the module's folder")
    if dry_run:
        print(draft.text(place), end="")
        return
    print(f"{draft.write(place)} is written: check it, then")
    print(f"  ./inv build --module {shlex.quote(folder)}")
    print(f"  ./inv test --module {shlex.quote(folder)}")


@task(
    help=KERNEL_HELP
    | {
        "run": "a bash command to run instead of a shell; its exit code becomes ours",
        "console": "serial or ssh",
        "topology": TOPOLOGY_HELP,
        "start": START_HELP,
        "monitor": "QEMU's own monitor on a socket; how to reach it is printed",
        "gdb": "gdb's protocol on a socket; the line to paste into gdb is printed",
        "raw": "what --run printed as it is, also on a terminal and in CI, which obey it",
        "dump": "a panic leaves the guest's memory in a file for drgn or crash",
        "accel": ACCEL_HELP,
        "timeout": "seconds that --run's command may take on KVM; more where guests are slower",
        "blocked": "seconds that --run's command may wait in the kernel while the guest is idle "
        "(default 20) before that is taken for a hang; 0: until --timeout",
    }
)
@plain_errors
@on_a_kernel
def boot(
    c: Context,
    choice: KernelSpec,
    run: str = "",
    console: str = "serial",
    topology: str = "default",
    start: str = "fastest",
    monitor: bool = False,
    gdb: bool = False,
    dump: bool = False,
    raw: bool = False,
    accel: str = "auto",
    timeout: int = 600,
    blocked: int = 20,
) -> None:
    """Boot a kernel: an interactive shell (Ctrl-] leaves it), or one command with --run.

    The command gets what is piped in: ./inv boot --run 'tar -x -C /tmp; ...' < FILE
    """
    from blockyard.ci.commands import shell

    wanted = shell.Wanted(
        topology, start, monitor=monitor, gdb=gdb, dump=dump, raw=raw, blocked_s=float(blocked)
    )
    code = shell.boot(choice, run, console, accel, float(timeout), wanted)
    if code:
        raise Exit(code=code)


@task(
    help={
        "unit": "only the tests that need no guest",
        "faults": "only the faults of guests; writes docs/reliability.md",
        "hostile": "only attacks on the build sandbox, and what stopped each",
        "k": "only tests that match, as pytest's",
    }
)
@plain_errors
def check(
    c: Context, unit: bool = False, faults: bool = False, hostile: bool = False, k: str = ""
) -> None:
    """Run our own checks: linters, mypy, unit tests, integration tests with a real kernel."""
    from blockyard.ci.commands import check as own_check
    from blockyard.kernel.host import environment

    environment.mention_ignored()
    failed = own_check.run(unit=unit, faults=faults, hostile=hostile, k=k)
    if failed:
        raise Exit(f"failed: {'; '.join(failed)}", 1)


@task(
    help={
        "driver": "comma-separated; default: all that have mutants in tests/mutants",
        "k": "only mutants whose names have this in them, or match it with * and ?",
        "suite": "comma-separated; default: all of tests/suites",
        "kernel": KERNEL_HELP["kernel"],
        "all": "run every test on every mutant; tells which tests catch nothing",
        "guests": "how many guests run side by side; 0: one per two CPUs, at least two",
        "accel": ACCEL_HELP,
        "write": "write the table to docs/mutants.md",
        "json": "print JSON instead of the table",
    }
)
@plain_errors
def mutants(
    c: Context,
    driver: str = "",
    k: str = "",
    suite: str = "",
    kernel: str = DEFAULT_KERNEL,
    all_: bool = False,
    guests: int = 0,
    accel: str = "auto",
    write: bool = False,
    json: bool = False,
) -> None:
    """Plant bugs in drivers, one at a time, and see which test catches each.

    Only the driver is built again. The exit code is 0 only if all bugs were caught.
    """
    from blockyard.ci.run import run, selection
    from blockyard.ci.studies import mutants_report
    from blockyard.ci.studies.mutants import Conditions
    from blockyard.ci.studies.mutants import mutants as chosen
    from blockyard.kernel.host.errors import UsageError

    selection.select(suite=suite)  # checked before anything is built
    if write and (driver or k or suite):
        raise UsageError("--write is for all mutants and all suites")
    conditions = Conditions(kernel, accel, run.workers(guests), suite, all_)
    if not mutants_report.show(chosen(driver, k), conditions, write=write, as_json=json):
        raise Exit(code=1)


@task(
    help=KERNEL_HELP
    | {
        "accel": ACCEL_HELP,
        "what": "comma-separated: warm-build, boot (these are the default), boot-plain, snapshot, "
        "build, test, cold-test, round-trip-serial, round-trip-ssh, output, memory, fleet, "
        "virtme-ng, labgrid, blktests",
        "tree": "for blktests: a checkout of it",
        "runs": "how often each is measured; medians are reported",
        "json": "print JSON instead of a table",
    }
)
@plain_errors
@on_a_kernel
def perf(
    c: Context,
    choice: KernelSpec,
    accel: str = "auto",
    what: str = "",
    tree: str = "",
    runs: int = 5,
    json: bool = False,
) -> None:
    """Measure what we cost over the bare tools, and beside our peers."""
    from blockyard.ci import selfbench as measure

    measure.show(measure.measure(choice, accel, what, runs, tree), as_json=json)


@task(
    iterable=["kernel"],
    help={
        "kernel": "as for test, and more than once: one after the other is compared",
        "driver": "comma-separated Rust drivers; default: those of Linux",
        "variant": "of the kernels, as for test",
        "record": "comma-separated results of earlier runs instead: folders or run.json",
        "write": "write the table to docs/parity.md",
        "json": "print JSON instead of the table",
    },
)
@plain_errors
def parity(
    c: Context,
    kernel: list[str],
    driver: str = "",
    variant: str = "plain",
    record: str = "",
    write: bool = False,
    json: bool = False,
) -> None:
    """Compare Rust drivers with their C counterparts, feature by feature.

    The suites are run on both, briefly and over one console; what differs, is missing or is broken
    is told per kernel, and which missing feature most tests wait for.
    """
    from blockyard.ci.studies import parity as comparison
    from blockyard.kernel.spec import KernelSpec

    choices = [KernelSpec(name, variant=variant) for name in kernel or [DEFAULT_KERNEL]]
    comparison.show(choices, driver, record, write=write, as_json=json)


@task(
    help={
        "json": "print JSON instead of a table",
        "cache": "instead, check every entry of the cache by its sha256 sums",
    }
)
@plain_errors
def doctor(c: Context, json: bool = False, cache: bool = False) -> None:
    """Check what Blockyard needs of this machine, and say how to get what is missing.

    The exit code is 1 when something is missing that Blockyard does not make by itself, or when an
    entry of the cache is broken.
    """
    from blockyard.ci.commands import doctor as examination
    from blockyard.ci.commands import integrity

    if cache:
        if not integrity.show(as_json=json):
            raise Exit(code=1)
        return

    if not examination.show(as_json=json):
        raise Exit(code=1)


@task(
    name="explain",
    positional=["symbol"],
    help={
        "symbol": "a Kconfig symbol, with or without CONFIG_",
        **KERNEL_HELP,
    },
)
@plain_errors
@on_a_kernel
def kernel_explain(c: Context, choice: KernelSpec, symbol: str) -> None:
    """Say in words why a Kconfig symbol is on, off or impossible in a tree."""
    from blockyard.ci import output
    from blockyard.ci.commands import explain
    from blockyard.kernel.host.debian import tool_root

    output.say(explain.why(choice, symbol, tool_root()))


@task(name="list", help={"json": "print JSON instead of a table"})
@plain_errors
def kernel_list(c: Context, json: bool = False) -> None:
    """List the kernels that have a name: what is cached, and what can be built in each."""
    from blockyard.ci.commands import kernels

    kernels.show(as_json=json)


@task(
    name="fetch",
    positional=["name"],
    help={"name": "comma-separated, as --kernel takes them"},
)
@plain_errors
def kernel_fetch(c: Context, name: str) -> None:
    """Fetch the source or the packages of kernels; nothing is built."""
    from blockyard.ci import output
    from blockyard.ci.commands import cache as upkeep

    for kernel, tree in upkeep.fetch(name).items():
        output.say(f"{kernel}  {tree.origin}  {tree.path}")


@task(
    name="update",
    help={
        "name": "comma-separated; default: all that were fetched from Debian",
        "yes": "record the newer versions, so that the next build takes them",
        "json": "print JSON instead of lines",
    },
)
@plain_errors
def kernel_update(c: Context, name: str = "", yes: bool = False, json: bool = False) -> None:
    """Ask the mirror which kernels have a newer point release, and what that would change."""
    from blockyard.ci.commands import cache as upkeep

    upkeep.show_updates(name, record=yes, as_json=json)


@task(
    name="diff",
    positional=["a", "b"],
    help={
        "a": "a .config file, or a kernel as --kernel takes it, or KERNEL:VARIANT",
        "b": "the same; what it has and the first has not is told as added",
        "json": "print JSON instead of lines",
    },
)
@plain_errors
def kernel_diff(c: Context, a: str, b: str, json: bool = False) -> None:
    """Compare two configurations: symbols, drivers, and the oldest tools that will do."""
    from blockyard.ci.commands import config_diff

    config_diff.show(a, b, as_json=json)


@task(
    name="gc",
    help={
        "days": "drop what was not used for so many days",
        "max-gb": "then drop more until the cache is no larger; without both: the setting cache_gb",
        "dry-run": "only say what would be dropped",
    },
)
@plain_errors
def kernel_gc(c: Context, days: str = "", max_gb: str = "", dry_run: bool = False) -> None:
    """Make the cache smaller: output trees, then sources, then kernels and images.

    What a running command uses is left alone.
    """
    from blockyard.ci.commands import cache as upkeep

    upkeep.clean(days, max_gb, dry_run=dry_run)


@task(
    name="survey",
    help={
        "kernels": "comma-separated, as --kernel takes them; default: all of the catalog",
        "accel": ACCEL_HELP,
        "guests": "how many guests run side by side; 0: one per two CPUs, at least two",
        "write": "write docs/kernels.md, where other kernels keep their rows",
        "json": "print JSON instead of the table",
    },
)
@plain_errors
def kernel_survey(
    c: Context,
    kernels: str = "",
    accel: str = "auto",
    guests: int = 0,
    write: bool = False,
    json: bool = False,
) -> None:
    """Fetch, build, boot and test every kernel, and tell what works on which."""
    from blockyard.ci.studies import survey

    survey.show(kernels, accel, guests, write=write, as_json=json)


@task(
    name="series",
    positional=["path"],
    help={
        "path": "a folder, an mbox or one patch, as --series takes it",
        "series-version": KERNEL_HELP["series-version"],
        "json": "print JSON instead of a table",
    },
)
@plain_errors
def show_series(c: Context, path: str, series_version: str = "", json: bool = False) -> None:
    """List the patches of a series, and what of it is left out and why; nothing is applied."""
    from pathlib import Path

    from blockyard.kernel.host.progress import printable
    from blockyard.kernel.sources.reader import read
    from blockyard.kernel.spec import numbered

    found = read(Path(path), numbered("--series-version", series_version))
    print(found.as_json() if json else printable("\n".join(found.table())))


@task(
    name="docs",
    help={
        "table": "print this table and write nothing",
        "run": "also run the commands of transcripts and of docs/run.svg, which boot guests",
        "k": "with --run: only commands that contain this text",
    },
)
@plain_errors
def dev_docs(c: Context, table: str = "", run: bool = False, k: str = "") -> None:
    """Write what commands make in README.md and docs/ again: tables, and with --run transcripts."""
    from blockyard.ci import output
    from blockyard.ci.commands import docs

    if table:
        output.say(docs.table(table).rstrip())
        return
    docs.update(run=run, pattern=k)


@task(
    name="graph",
    help={
        "checkout": "draw this checkout's imports, by default this one's",
        "output": "the SVG file to write, by default docs/imports.svg",
    },
)
@plain_errors
def dev_graph(c: Context, checkout: str = "", output: str = "docs/imports.svg") -> None:
    """Draw which of our folders imports which, as an SVG; what is red is a circle."""
    from blockyard.ci.commands import check as own_check

    own_check.draw_imports(checkout, output)


namespace = Collection(
    test, blktests, check, init, build, boot, mutants, parity, perf, doctor, show_series
)
_kernel = Collection("kernel")
_kernel.add_task(kernel_explain)
_kernel.add_task(kernel_survey)
_kernel.add_task(kernel_list)
_kernel.add_task(kernel_fetch)
_kernel.add_task(kernel_update)
_kernel.add_task(kernel_diff)
_kernel.add_task(kernel_gc)
namespace.add_collection(_kernel)
_dev = Collection("dev")
_dev.add_task(dev_docs)
_dev.add_task(dev_graph)
namespace.add_collection(_dev)
