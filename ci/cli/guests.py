# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that build a kernel, boot it or test its drivers."""

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
        "suite": ("NAMES", "or all; default: smoke, a few tests of each suite (all with -k)"),
        "quick": ("", "a quarter of the time for loads and repetitions"),
        "long": ("", "ten times the time for loads and repetitions"),
        "seed": ("N", "shuffle the tests of each guest; the same number gives the same order"),
        "resume": (
            "RUN",
            "continue an interrupted or killed run: its name in results; default: the newest run "
            "with the same options",
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

    Tests each driver over a serial and an ssh console. The first run sets everything up (about ten
    minutes on two cores); a later one takes about 90 seconds. It runs the smoke tests: those that
    fail first when a driver does not work. `--suite all` runs all tests in about six minutes.
    In a driver's repository, blockyard.toml or [tool.blockyard] of pyproject.toml has the defaults
    of options (docs/configuration.md); there is one run per kernel, variant and topology.
    Options for pytest go after `--`; pytest then prints its own output.
    """
    from blockyard.ci import output
    from blockyard.ci.report import reporters, terminal
    from blockyard.ci.run import boot_env, collection, exits, run, selection
    from blockyard.ci.run import resume as resumption
    from blockyard.images.hardware.topology import DEFAULT
    from blockyard.modules import plan

    chosen_reporters = reporters.named(report)
    out_of_tree, workers = plan.out_of_tree(spec), run.workers(guests)
    spend = selection.budget_named(quick=quick, long=long)
    suites = ",".join(suite) or ("all" if k else selection.SMOKE)
    selected = selection.select(
        ",".join(driver),
        ",".join(console),
        suites,
        k,
        out_of_tree,
        topology or DEFAULT.name,
        start,
        spend,
        seed,
    )
    selected = selection.trusting(selected, trust=trust_tests)
    selected = selection.with_arguments(selected, words, json=json)
    # the selection is checked before anything is built
    tests = collection.collected(selected)
    if list_:
        output.say("\n".join(map(str, tests.values())))
        return
    resumable = resumption.options(spec, selected)
    which = resumption.LATEST if resume is True else str(resume)
    earlier = resumption.find(which, resumable) if resume else None
    run.check(selected)
    with exits.untestable():
        env = boot_env.ready(spec, accel, all_modules=False)
    requested = selected
    if not driver and not spec.modules:
        selected = selection.with_carried(selected, env.kernel)
    finished, path = run.run(
        env,
        selected,
        workers,
        spec,
        requested=resumable,
        earlier=earlier,
        tests=tests if selected == requested else None,  # with more drivers: collect again
    )

    def show() -> None:
        print(output.as_json(finished)) if json else terminal.show(finished, path)
        reporters.report(chosen_reporters, finished, path)

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
        "monitor": ("", "QEMU's monitor on a socket; prints the command to reach it"),
        "gdb": ("", "a gdb stub on a socket; prints the gdb command to attach"),
        "raw": ("", "print the output of --run unchanged, control characters included"),
        "dump": ("", "on a panic, dump the guest's memory to a file for drgn or crash"),
        "timeout": (
            "S",
            "time limit of the --run command on KVM, in seconds; longer under emulation",
        ),
        "blocked": (
            "S",
            "seconds that the --run command may block in the kernel of an idle guest before it "
            "counts as a hang; 0: no limit but --timeout",
        ),
    },
    ends={
        0: "the shell ended, or the command exited with 0",
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

    Ctrl-] leaves the shell. The command reads our standard input.
    """
    from blockyard.ci.commands import shell

    guest = shell.GuestOptions(
        topology, start, monitor=monitor, gdb=gdb, dump=dump, raw=raw, blocked_s=float(blocked)
    )
    code = shell.boot(spec, run, console, accel, float(timeout), guest)
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
    results="Prints a folder of the cache with the image, modules, kernel.json and the log.",
)
def build(c: Context, spec: KernelSpec, json: bool = False) -> None:
    """Build a kernel, or take it from the cache.

    A kernel with the same sources, configuration and compilers is built once.
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
    help={
        "folder": ("DIR", "sources of a module outside the kernel tree; . is the current folder")
    },
    results="manifest.toml in that folder.",
)
def init(c: Context, folder: str, dry_run: bool = False) -> None:
    """Write a manifest for a driver of your own.

    Drafts it from the sources. Check it and complete what the sources do not show, then build and
    test the driver.
    """
    from blockyard.kernel.host.errors import UsageError
    from blockyard.kernel.host.installation import program
    from blockyard.kernel.host.settings import user_path
    from blockyard.modules import draft

    if not folder:
        raise UsageError("no folder given", hint="./inv init DIR; . is the current folder")
    path = user_path(folder, "the module's folder")
    if dry_run:
        print(draft.text(path), end="")
        return
    print(f"wrote {draft.write(path)}: check it, then")
    print(f"  {program()} build --module {shlex.quote(folder)}")
    print(f"  {program()} test --module {shlex.quote(folder)}")
