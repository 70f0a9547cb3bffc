# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that give an answer: build a kernel, boot it, test its drivers."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.exceptions import Exit

from blockyard.ci.cli.command import Group, Words, command

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec


@command(
    "test",
    Group.ANSWER,
    "test --driver rnull",
    "test --kernel 7.3-debian  # Debian's own build: no compiler needed",
    "test --suite block,configfs -k size --console serial",
    "test --kernel ~/linux#my-branch --suite all --seed 7",
    "test --module ~/my_driver",
    "test --resume",
    "test --suite block -- -x --durations=5",
    on_a_kernel=True,
    project=True,
    words="PYTEST-OPTION...",
    optional=["resume"],
    help={
        "driver": ("NAMES", "default: all that have a manifest in modules/"),
        "suite": ("NAMES", "or all; default: smoke, the first tests of each (all with -k)"),
        "quick": ("", "loads and repetitions take a quarter of the time"),
        "long": ("", "they take ten times as long"),
        "seed": ("N", "the tests of each guest in another order, the same for the same number"),
        "resume": (
            "RUN",
            "go on with a run that was interrupted or killed: its name in results, or the newest "
            "one with the same options",
        ),
        "json": ("", "print the run record instead of the report"),
        "report": (
            "NAMES",
            "also call these reporters: markdown (report.md beside the record), or those of "
            "installed packages",
        ),
        "trust_tests": (
            "",
            "run a module's own test files without a sandbox, with all your rights",
        ),
    },
    ends={
        0: "every test that could run passed, or failed as known",
        1: "a test failed, crashed, timed out or was lost",
        125: "nothing could be tested: no kernel, no guest, or every test was skipped",
    },
    results="results/latest/run.json is the record of the run (docs/run-record.md), with JUnit XML "
    "and each guest's kernel log beside it.",
)
def test(
    c: Context,
    spec: KernelSpec,
    words: tuple[str, ...],
    driver: Words = (),
    console: Words = (),
    suite: Words = (),
    k: str = "",
    list_: bool = False,
    topology: str = "",
    start: str = "auto",
    accel: str = "auto",
    guests: int = 0,
    quick: bool = False,
    long: bool = False,
    seed: str = "",
    resume: str | bool = "",
    json: bool = False,
    report: Words = (),
    trust_tests: bool = False,
) -> None:
    """Build a kernel, boot it, test its block drivers.

    Each driver is tested over a serial and over an ssh console.
    The first run sets everything up (about ten minutes on two cores). A later one takes about a
    minute and a half: it has the smoke tests, those that show first whether a driver works.
    `--suite all` has all tests and takes about six minutes.
    In a driver's repository, blockyard.toml or [tool.blockyard] of pyproject.toml says what is
    tested when no option does (docs/configuration.md): there is a run per kernel, variant and
    topology. What stands behind `--` are options for pytest, which then prints its own output.
    """
    from blockyard.ci import output
    from blockyard.ci.report import reporters, terminal
    from blockyard.ci.run import boot_env, collection, exits, run, selection
    from blockyard.ci.run import resume as resumption
    from blockyard.images.hardware.topology import DEFAULT
    from blockyard.modules import plan

    called = reporters.named(report)
    outside, workers = plan.out_of_tree(spec), run.workers(guests)
    spend = selection.budget_named(quick=quick, long=long)
    suites = ",".join(suite) or ("all" if k else selection.SMOKE)
    wanted = selection.select(
        ",".join(driver),
        ",".join(console),
        suites,
        k,
        outside,
        topology or DEFAULT.name,
        start,
        spend,
        seed,
    )
    wanted = selection.trusting(wanted, trust=trust_tests)
    wanted = selection.with_arguments(wanted, words, json=json)
    # the selection is checked before anything is built
    tests = collection.collected(wanted)
    if list_:
        output.say("\n".join(map(str, tests.values())))
        return
    asked = resumption.asked(spec, wanted)
    which = resumption.LATEST if resume is True else str(resume)
    earlier = resumption.find(which, asked) if resume else None
    run.check(wanted)
    with exits.untestable():
        ready = boot_env.ready(spec, accel, all_modules=False)
    before = wanted
    if not driver and not spec.modules:
        wanted = selection.with_carried(wanted, ready.kernel)
    finished, path = run.run(
        ready,
        wanted,
        workers,
        spec,
        asked=asked,
        earlier=earlier,
        tests=tests if wanted == before else None,  # of other drivers, they are collected again
    )

    def show() -> None:
        print(output.as_json(finished)) if json else terminal.show(finished, path)
        reporters.report(called, finished, path)

    exits.end(exits.of_run(finished), show)


@command(
    "boot",
    Group.ANSWER,
    "boot --kernel 7.3-debian",
    "boot --run 'nvme list; uname -r'",
    "boot --run 'tar -x -C /tmp; ls /tmp' < files.tar",
    "boot --topology zns --console ssh",
    "boot --gdb --variant symbols",
    on_a_kernel=True,
    help={
        "run": ("COMMAND", "a bash command to run instead of a shell; its exit code becomes ours"),
        "console": ("NAME", "serial or ssh"),
        "monitor": ("", "QEMU's own monitor on a socket; how to reach it is printed"),
        "gdb": ("", "gdb's protocol on a socket; the line to paste into gdb is printed"),
        "raw": ("", "what --run printed as it is, also on a terminal and in CI, which obey it"),
        "dump": ("", "a panic leaves the guest's memory in a file for drgn or crash"),
        "timeout": ("S", "seconds that --run's command may take on KVM; more where it is slower"),
        "blocked": (
            "S",
            "seconds that --run's command may wait in the kernel while the guest is idle before "
            "that is taken for a hang; 0: until --timeout",
        ),
    },
    ends={
        0: "the shell was left, or the command ended with 0",
        1: "the guest did not come up or died",
    },
    results="With --run the exit code is the command's. A guest that fails leaves its kernel log "
    "and QEMU's messages in the cache; the error names the folder.",
)
def boot(
    c: Context,
    spec: KernelSpec,
    run: str = "",
    console: str = "serial",
    topology: str = "default",
    start: str = "auto",
    monitor: bool = False,
    gdb: bool = False,
    dump: bool = False,
    raw: bool = False,
    accel: str = "auto",
    timeout: int = 600,
    blocked: int = 20,
) -> None:
    """Boot a kernel: a shell, or one command with --run.

    Ctrl-] leaves the shell. A command gets what is piped in.
    """
    from blockyard.ci.commands import shell

    wanted = shell.Wanted(
        topology, start, monitor=monitor, gdb=gdb, dump=dump, raw=raw, blocked_s=float(blocked)
    )
    code = shell.boot(spec, run, console, accel, float(timeout), wanted)
    if code:
        raise Exit(code=code)


@command(
    "build",
    Group.ANSWER,
    "build --variant kasan",
    "build --kernel ./linux",
    "build --kernel 7.3 --series patches/ --compiler gcc",
    "build --module ~/my_driver --json",
    on_a_kernel=True,
    help={"json": ("", "print kernel.json instead of one line")},
    results="A folder of the cache, which is printed: the image, modules, kernel.json, the log.",
)
def build(c: Context, spec: KernelSpec, json: bool = False) -> None:
    """Build a kernel, or take it from the cache.

    The same sources, configuration and compilers give the same key: what is in the cache already
    is not built again.
    """
    from blockyard.ci.output import say
    from blockyard.kernel.host.debian import tool_root
    from blockyard.kernel.host.progress import printable_json
    from blockyard.modules import plan

    plan.out_of_tree(spec)
    tools = tool_root()
    built = plan.kernel(spec, tools)
    modules = plan.modules(spec, built, tools, all_=True)
    if json:
        print(printable_json((built.path / "kernel.json").read_text()), end="")
    else:
        say(f"{built.info.release}  {built.info.source}  {built.path}")
        for module in [file for folder in modules for file in folder.glob("*.ko")]:
            say(f"{module.stem}  {module}")


@command(
    "init",
    Group.ANSWER,
    "init ~/my_driver",
    "init . --dry-run",
    help={"folder": ("DIR", "the sources of a module outside the kernel tree; . is this folder")},
    results="manifest.toml in that folder.",
)
def init(c: Context, folder: str, dry_run: bool = False) -> None:
    """Write a manifest for a driver of your own.

    It is drafted from the sources. Read it, and correct what the sources did not show; then build
    and test the driver.
    """
    from blockyard.kernel.host.errors import UsageError
    from blockyard.kernel.host.installation import program
    from blockyard.kernel.host.settings import user_path
    from blockyard.modules import draft

    if not folder:
        raise UsageError("no folder is named", hint="./inv init DIR; . is the current one")
    path = user_path(folder, "the module's folder")
    if dry_run:
        print(draft.text(path), end="")
        return
    print(f"{draft.write(path)} is written: check it, then")
    print(f"  {program()} build --module {shlex.quote(folder)}")
    print(f"  {program()} test --module {shlex.quote(folder)}")
