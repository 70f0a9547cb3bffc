# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv doctor`: checks what this machine has of what Blockyard needs, and how to get the rest.

Installs, fetches and boots nothing. Parts that Blockyard makes itself (the tool root, the result of
probing KVM) are reported as a note, not as missing.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from blockyard.ci import output
from blockyard.ci.commands import integrity
from blockyard.ci.run.module_tests import enclosure
from blockyard.images.hardware.topology import DEFAULT
from blockyard.images.machine import accelerator
from blockyard.images.machine.qemu import PACKAGE
from blockyard.kernel import catalog, sources
from blockyard.kernel.build import path_toolchain, toolchain
from blockyard.kernel.catalog import DebianImage
from blockyard.kernel.config.diff import TOOLS
from blockyard.kernel.host import commands, gc, host_packages
from blockyard.kernel.host.debian import ToolRoot, ready_tool_root
from blockyard.kernel.host.errors import BlockyardError
from blockyard.kernel.host.host_packages import KEYRING, KEYRING_PACKAGE, install_command
from blockyard.kernel.host.installation import as_typed
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.host.settings import settings
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.versions import at_least

FIRST_RUN_GB = 6.0  # tool root, one source tree, its output tree, kernel and guest root
RESULTS_GB = 0.1  # record and logs of a run take a few MB
COMPILE_MIB = 1024  # two compilers and the linker together
ANSWER_S = 20  # timeout of `PROGRAM --version`
# Programs that the tool root must have → their names in the kernel's min-tool-version.sh.
ROOT_TOOLS = {"clang": "llvm", "lld": "", "gcc": "gcc", "ld": "binutils", "rustc": "rustc"}
ROOT_TOOLS |= {"bindgen": "bindgen", "make": "", PACKAGE: ""}

State = Literal["ok", "note", "missing", "unknown"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one check."""

    group: str
    name: str
    found: str  # version, size, or an error
    needed: str = ""
    # note: limits what can be done; missing: nothing works without it; unknown: not checked
    state: State = "ok"
    fix: str = ""  # a command, or a sentence


def examine() -> list[Check]:
    """Runs all checks; takes a few seconds."""
    tools = ready_tool_root()
    return [
        *host_programs(),
        namespaces(),
        *tool_programs(tools),
        *(kernel_needs(name, tree, tools) for name, tree in _trees() if tools),
        *_host_toolchain(),
        _accelerator(tools),
        *_space(),
        memory(Path("/proc/meminfo").read_text()),
        nesting(),
        *unknown([name for name, _ in _trees()]),
    ]


def host_programs() -> Iterator[Check]:
    """Checks programs and files that the host must have."""
    yield Check(group="host", name="Python", found=platform.python_version(), needed="3.11")
    for program in host_packages.required():
        yield _program("host", program, host_packages.PACKAGES[program], "missing")
    if os.geteuid() != 0:
        yield _subordinate_ids()
    installed = KEYRING.is_file()
    yield Check(
        group="host",
        name="archive keyring",
        found=str(KEYRING) if installed else "not installed",
        state="ok" if installed else "missing",
        fix="" if installed else install_command(KEYRING_PACKAGE),
    )
    # needed only for kernels from repositories
    yield _program("host", "git", "git", "note")


BROKEN = "does not run"


def _program(group: str, program: str, package: str, state: State) -> Check:
    version = version_of(program)
    works = version not in ("", BROKEN)
    return Check(
        group=group,
        name=program,
        found=version or "not installed",
        state="ok" if works else state,
        fix="" if works else install_command(*([] if not version else ["--reinstall"]), package),
    )


def version_of(program: str) -> str:
    """The version that a program on PATH prints; empty when it is not on PATH.

    BROKEN when it exists and does not run.
    """
    if shutil.which(program) is None:
        return ""
    try:
        done = path_toolchain.ask([program, "--version"])
    except (OSError, subprocess.TimeoutExpired):
        return BROKEN
    version = re.search(r"\d+(\.\d+)+", done.stdout)
    return version[0] if version else "unknown version"


def _subordinate_ids() -> Check:
    number = str(os.getuid())
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container a uid may have no name
        user = number
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    has_range = all(any(_has_range(file, name) for name in (user, number)) for file in files)
    ids = "100000-165535"
    return Check(
        group="host",
        name="subordinate ids",
        found="a range" if has_range else f"none for {user}",
        state="ok" if has_range else "missing",
        fix="" if has_range else f"sudo usermod --add-subuids {ids} --add-subgids {ids} {user}",
    )


def _has_range(file: Path, user: str) -> bool:
    try:
        return any(line.startswith(f"{user}:") for line in file.read_text().splitlines())
    except OSError:
        return False


def namespaces() -> Check:
    """Checks that bwrap can make the sandbox that builds and QEMU run in."""
    try:
        done = commands.ask(Sandbox(Path("/")).argv(["true"]), timeout_s=ANSWER_S)
        problem = "" if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    return Check(
        group="host",
        name="user namespaces",
        found=problem or "bwrap can make them",
        state="missing" if problem else "ok",
        fix="see Troubleshooting in README.md; on Ubuntu: "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        if problem
        else "",
    )


def tool_programs(tools: ToolRoot | None) -> Iterator[Check]:
    """Checks the compilers and QEMU of the tool root."""
    if tools is None:
        yield Check(
            group="tool root",
            name="tool root",
            found="not made yet",
            state="note",
            fix="./inv build makes it: two minutes, 2 GB",
        )
        return
    versions = root_versions(tools)
    for program in ROOT_TOOLS:
        installed = program in versions
        yield Check(
            group="tool root",
            name=program,
            found=versions.get(program, "not there"),
            state="ok" if installed else "missing",
            fix="" if installed else f"add it to kernel/toolroot.toml, or remove {tools.path}",
        )


def root_versions(tools: ToolRoot) -> dict[str, str]:
    """Program → version, of the ROOT_TOOLS that the tool root has."""
    versions = dict(tools.versions)
    for compiler in toolchain.COMPILERS:
        versions |= toolchain.from_root(tools, compiler).versions
    # without Debian's epoch, as in "1:19.1"
    return {name: versions[name].rpartition(":")[2] for name in ROOT_TOOLS if name in versions}


def _trees() -> Iterator[tuple[str, Tree]]:
    """Name and tree of each kernel in the catalog whose source is in the cache."""
    for name, entry in catalog.catalog().items():
        if _is_prebuilt(entry):
            continue
        try:
            tree = sources.cached(name, entry)
        except BlockyardError:  # such as a missing directory, which kernel.list reports
            continue
        if tree is not None:
            yield name, tree


def _is_prebuilt(entry: catalog.Entry) -> bool:
    return isinstance(entry, DebianImage)


def kernel_needs(name: str, tree: Tree, tools: ToolRoot | None) -> Check:
    """Checks that the tool root's programs are new enough for a tree."""
    needs = {tool: minimum for tool in TOOLS if (minimum := toolchain.minimum(tree, tool))}
    needed = ", ".join(f"{tool} {version}" for tool, version in needs.items())
    versions = root_versions(tools) if tools else {}
    outdated = too_old(needs, versions)
    compilers = [tool for tool in ("llvm", "gcc") if tool in outdated]
    if compilers:
        return Check(
            group="kernels",
            name=name,
            found=f"too old: {', '.join(f'{tool} {outdated[tool]}' for tool in compilers)}",
            needed=needed,
            state="missing" if len(compilers) == 2 else "note",
            fix=f"./inv build --kernel {name} --toolchain host with newer compilers on PATH",
        )
    no_rust = toolchain.rust_problem(tree, toolchain.from_root(tools)) if tools else ""
    return Check(
        group="kernels",
        name=name,
        found=f"no Rust: {no_rust}" if no_rust else "the tool root has all of them",
        needed=needed,
        state="note" if no_rust else "ok",
    )


def too_old(needs: Mapping[str, str], programs: Mapping[str, str]) -> dict[str, str]:
    """Tools that are older than their minimum in `needs`, or missing → version.

    needs: tool → oldest version that works. programs: program → version.
    """
    names = {tool: program for program, tool in ROOT_TOOLS.items() if tool}
    have = {tool: programs.get(names[tool], "") for tool in needs}
    return {
        tool: have[tool] or "not there"
        for tool, minimum in needs.items()
        if not have[tool] or not at_least(have[tool], minimum)
    }


def _host_toolchain() -> Iterator[Check]:
    """Checks programs that only --toolchain host needs."""
    for program, package in path_toolchain.PACKAGES.items():
        yield _program("host, only for --toolchain host", program, package, "note")


def _accelerator(tools: ToolRoot | None) -> Check:
    verdict = accelerator.known(tools.versions.get(PACKAGE, "") if tools else "")
    if verdict is None:
        return Check(
            group="guests",
            name="accelerator",
            found=f"{accelerator.KVM} exists; not probed yet",
            state="note",
            fix="./inv boot --run true probes it",
        )
    if verdict.works:
        return Check(group="guests", name="accelerator", found=f"KVM: {verdict.reason}")
    return Check(
        group="guests",
        name="accelerator",
        found=f"no KVM: {verdict.reason}; guests are emulated, four to five times slower",
        state="note",
    )


def _space() -> Iterator[Check]:
    cached_gb = gc.total(gc.entries()) / gc.GB
    yield space("cache", settings().cache_dir, max(1.0, FIRST_RUN_GB - cached_gb))
    yield space("results", settings().results_dir, RESULTS_GB)


def space(setting: str, path: Path, needed_gb: float) -> Check:
    """Checks the free space for a folder, which may not exist yet. setting: cache or results."""
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    free_gb = shutil.disk_usage(existing).free / gc.GB
    enough = free_gb >= needed_gb
    variable = f"BLOCKYARD_{setting.upper()}"
    if enough and (why := integrity.unwritable(path)):
        return Check(
            group="space",
            name=f"{setting}: {path}",
            found=f"not writable: {why}",
            state="missing",
            fix=f"make it writable, or set {variable} to a directory of your own",
        )
    return Check(
        group="space",
        name=f"{setting}: {path}",
        found=f"{free_gb:.1f} GB free",
        needed=f"{needed_gb:.1f} GB",
        state="ok" if enough else "missing",
        fix="" if enough else f"./inv cache.gc --max-gb 5, or set {variable} to another disk",
    )


def memory(meminfo: str) -> Check:
    """Checks that memory is enough for a guest or a build. meminfo: text of /proc/meminfo."""
    available = re.search(r"^MemAvailable: +(\d+) kB$", meminfo, re.MULTILINE)
    free_mib = int(available[1]) // 1024 if available else 0
    needed_mib = max(DEFAULT.memory_mib, COMPILE_MIB)
    side_by_side = 2 * DEFAULT.memory_mib + COMPILE_MIB
    state: State = "ok" if free_mib >= side_by_side else "note"
    fix = "" if state == "ok" else "./inv test --guests 1; fewer jobs: BLOCKYARD_JOBS=1"
    return Check(
        group="space",
        name="memory",
        found=f"{free_mib / 1024:.1f} GiB available",
        needed=f"{needed_mib / 1024:.1f} GiB",
        state="missing" if free_mib < needed_mib else state,
        fix=fix,
    )


def nesting() -> Check:
    """Checks that sandboxes nest: a module's own tests start QEMU inside theirs."""
    try:
        problem = enclosure.obstacle()
    except OSError as error:
        problem = f"not checked: {error.strerror}"
    return Check(
        group="guests",
        name="nested sandbox",
        found=problem or "bwrap can nest them",
        state="note" if problem else "ok",
        fix="--trust-tests runs a module's own tests without a sandbox" if problem else "",
    )


def unknown(fetched: Sequence[str]) -> Iterator[Check]:
    """What doctor does not check, and the command that does."""
    rows = {
        "mirror": "whether it answers: run ./inv kernel.update",
        "cache": "whether its files are intact: run ./inv cache.check",
    }
    built_here = (name for name, entry in catalog.catalog().items() if not _is_prebuilt(entry))
    if others := [name for name in built_here if name not in fetched]:
        rows["other kernels"] = f"what they need, since they are not fetched: {', '.join(others)}"
    for name, what in rows.items():
        yield Check(group="not checked", name=name, found=what, state="unknown")


def show(*, as_json: bool) -> bool:
    """Prints the results as JSON or a list; returns whether nothing is missing."""
    results = examine()
    if as_json:
        print(output.as_json(results))
    else:
        _print(results)
    return all(check.state != "missing" for check in results)


def _print(results: list[Check]) -> None:
    styles = {"ok": "green", "note": "yellow", "missing": "bold red", "unknown": "dim"}
    console = output.console()
    for group in dict.fromkeys(check.group for check in results):
        console.print(f"\n{group}")
        for check in results:
            if check.group == group:
                needed = f"  (needs {check.needed})" if check.needed else ""
                state = output.plain(f"  {check.state:<7}", styles[check.state])
                console.print(
                    state, output.plain(as_typed(f" {check.name:<16}  {check.found}{needed}"))
                )
    fixes = [as_typed(f"{check.name}: {check.fix}") for check in results if check.fix]
    if fixes:
        console.print("\nwhat to do:")
        for fix in fixes:
            output.say(f"  {fix}")
