# SPDX-License-Identifier: GPL-2.0-or-later
"""What Blockyard needs of this machine: what is there, in which version, and what to do else.

Nothing is installed, fetched or booted. What Blockyard makes by itself (the tool root, a verdict on
KVM) is told when it is not there yet, and is no fault.
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
RESULTS_GB = 0.1  # a run's record and logs are a few MB
COMPILE_MIB = 1024  # what two compilers and the linker want at once
ANSWER_S = 20  # a program that does not tell its version by then is none
# Programs that the tool root cannot do without, and what a kernel's min-tool-version.sh calls them.
ROOT_TOOLS = {"clang": "llvm", "lld": "", "gcc": "gcc", "ld": "binutils", "rustc": "rustc"}
ROOT_TOOLS |= {"bindgen": "bindgen", "make": "", PACKAGE: ""}

State = Literal["ok", "note", "missing", "unknown"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    group: str
    name: str
    found: str  # version, size, or what happened
    needed: str = ""
    # note: it limits what can be done; missing: nothing works without it; unknown: not looked at
    state: State = "ok"
    fix: str = ""  # a command, or a sentence


def examine() -> list[Check]:
    """Looks at everything."""
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
    """The programs and files that the host must have."""
    yield Check(group="host", name="Python", found=platform.python_version(), needed="3.11")
    for program in host_packages.required():
        yield _program("host", program, host_packages.PACKAGES[program], "missing")
    if os.geteuid() != 0:
        yield _subordinate_ids()
    there = KEYRING.is_file()
    yield Check(
        group="host",
        name="archive keyring",
        found=str(KEYRING) if there else "not installed",
        state="ok" if there else "missing",
        fix="" if there else install_command(KEYRING_PACKAGE),
    )
    # only for kernels from repositories
    yield _program("host", "git", "git", "note")


BROKEN = "does not run"


def _program(group: str, program: str, package: str, state: State) -> Check:
    found = version_of(program)
    works = found not in ("", BROKEN)
    return Check(
        group=group,
        name=program,
        found=found or "not installed",
        state="ok" if works else state,
        fix="" if works else install_command(*([] if not found else ["--reinstall"]), package),
    )


def version_of(program: str) -> str:
    """The version that a program on PATH tells; empty when there is no such program.

    BROKEN when it is there and does not run.
    """
    if shutil.which(program) is None:
        return ""
    try:
        told = path_toolchain.ask([program, "--version"])
    except (OSError, subprocess.TimeoutExpired):
        return BROKEN
    found = re.search(r"\d+(\.\d+)+", told.stdout)
    return found[0] if found else "of unknown version"


def _subordinate_ids() -> Check:
    number = str(os.getuid())
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, users need have no names
        user = number
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    there = all(any(_has_range(file, name) for name in (user, number)) for file in files)
    ids = "100000-165535"
    return Check(
        group="host",
        name="subordinate ids",
        found="a range" if there else f"none for {user}",
        state="ok" if there else "missing",
        fix="" if there else f"sudo usermod --add-subuids {ids} --add-subgids {ids} {user}",
    )


def _has_range(file: Path, user: str) -> bool:
    try:
        return any(line.startswith(f"{user}:") for line in file.read_text().splitlines())
    except OSError:
        return False


def namespaces() -> Check:
    """Whether bwrap can make the sandbox that everything runs in."""
    try:
        done = commands.ask(Sandbox(Path("/")).argv(["true"]), timeout_s=ANSWER_S)
        said = "" if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    return Check(
        group="host",
        name="user namespaces",
        found=said or "bwrap makes them",
        state="missing" if said else "ok",
        fix="see Troubleshooting in README.md; on Ubuntu: "
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        if said
        else "",
    )


def tool_programs(tools: ToolRoot | None) -> Iterator[Check]:
    """The compilers and QEMU of the tool root."""
    if tools is None:
        yield Check(
            group="tool root",
            name="tool root",
            found="not made yet",
            state="note",
            fix="./inv build makes it: two minutes, 2 GB",
        )
        return
    found = root_versions(tools)
    for program in ROOT_TOOLS:
        there = program in found
        yield Check(
            group="tool root",
            name=program,
            found=found.get(program, "not there"),
            state="ok" if there else "missing",
            fix="" if there else f"add it to kernel/toolroot.toml, or remove {tools.path}",
        )


def root_versions(tools: ToolRoot) -> dict[str, str]:
    """Program → version of what the tool root has of ROOT_TOOLS."""
    found = dict(tools.versions)
    for compiler in toolchain.COMPILERS:
        found |= toolchain.from_root(tools, compiler).versions
    # Debian's epoch ("1:19.1") is no part of a program's version
    return {name: found[name].rpartition(":")[2] for name in ROOT_TOOLS if name in found}


def _trees() -> Iterator[tuple[str, Tree]]:
    """The source trees of the catalog that are fetched."""
    for name, entry in catalog.catalog().items():
        if _is_prebuilt(entry):
            continue
        try:
            tree = sources.cached(name, entry)
        except BlockyardError:  # a directory that is gone: ./inv kernel.list says so
            continue
        if tree is not None:
            yield name, tree


def _is_prebuilt(entry: catalog.Entry) -> bool:
    return isinstance(entry, DebianImage)


def kernel_needs(name: str, tree: Tree, tools: ToolRoot | None) -> Check:
    """Whether the tool root's programs are new enough for a tree."""
    needs = {tool: found for tool in TOOLS if (found := toolchain.minimum(tree, tool))}
    needed = ", ".join(f"{tool} {version}" for tool, version in needs.items())
    versions = root_versions(tools) if tools else {}
    lacking = too_old(needs, versions)
    compilers = [tool for tool in ("llvm", "gcc") if tool in lacking]
    if compilers:
        return Check(
            group="kernels",
            name=name,
            found=f"too old: {', '.join(f'{tool} {lacking[tool]}' for tool in compilers)}",
            needed=needed,
            state="missing" if len(compilers) == 2 else "note",
            fix=f"./inv build --kernel {name} --toolchain host with newer compilers on PATH",
        )
    no_rust = toolchain.rust_problem(tree, toolchain.from_root(tools)) if tools else ""
    return Check(
        group="kernels",
        name=name,
        found=f"no Rust: {no_rust}" if no_rust else "the tool root has it all",
        needed=needed,
        state="note" if no_rust else "ok",
    )


def too_old(needs: Mapping[str, str], programs: Mapping[str, str]) -> dict[str, str]:
    """Of the tools in `needs` (tool → minimum) those that are older or not there → version."""
    names = {tool: program for program, tool in ROOT_TOOLS.items() if tool}
    have = {tool: programs.get(names[tool], "") for tool in needs}
    return {
        tool: have[tool] or "not there"
        for tool, minimum in needs.items()
        if not have[tool] or not at_least(have[tool], minimum)
    }


def _host_toolchain() -> Iterator[Check]:
    """Programs that only --toolchain host asks for."""
    for program, package in path_toolchain.PACKAGES.items():
        yield _program("host, only for --toolchain host", program, package, "note")


def _accelerator(tools: ToolRoot | None) -> Check:
    verdict = accelerator.known(tools.versions.get(PACKAGE, "") if tools else "")
    if verdict is None:
        return Check(
            group="guests",
            name="accelerator",
            found=f"{accelerator.KVM} is there; whether it runs a guest was not tried yet",
            state="note",
            fix="./inv boot --run true tries it",
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
    """Whether the disk of a folder, that may not exist yet, has so much left."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    free_gb = shutil.disk_usage(there).free / gc.GB
    enough = free_gb >= needed_gb
    variable = f"BLOCKYARD_{setting.upper()}"
    if enough and (why := integrity.unwritable(path)):
        return Check(
            group="space",
            name=f"{setting}: {path}",
            found=f"cannot be written: {why}",
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
    """Whether a guest and a compiler find room, from /proc/meminfo's text."""
    found = re.search(r"^MemAvailable: +(\d+) kB$", meminfo, re.MULTILINE)
    free_mib = int(found[1]) // 1024 if found else 0
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
    """Whether QEMU can be started inside the sandbox of a module's own test files."""
    try:
        problem = enclosure.obstacle()
    except OSError as error:
        problem = f"not tried: {error.strerror}"
    return Check(
        group="guests",
        name="nested sandbox",
        found=problem or "bwrap makes one in another",
        state="note" if problem else "ok",
        fix="--trust-tests runs a module's own tests without a sandbox" if problem else "",
    )


def unknown(fetched: Sequence[str]) -> Iterator[Check]:
    """What doctor does not look at, and what would tell."""
    rows = {
        "mirror": "whether it answers (nothing is fetched here): ./inv kernel.update asks it",
        "cache": "whether what is in it is whole: ./inv cache.check reads all of it",
    }
    built_here = (name for name, entry in catalog.catalog().items() if not _is_prebuilt(entry))
    if others := [name for name in built_here if name not in fetched]:
        rows["other kernels"] = f"what they need, until they are fetched: {', '.join(others)}"
    for name, found in rows.items():
        yield Check(group="not looked at", name=name, found=found, state="unknown")


def show(*, as_json: bool) -> bool:
    """Prints the findings; whether nothing is missing."""
    found = examine()
    if as_json:
        print(output.as_json(found))
    else:
        _print(found)
    return all(one.state != "missing" for one in found)


def _print(found: list[Check]) -> None:
    styles = {"ok": "green", "note": "yellow", "missing": "bold red", "unknown": "dim"}
    console = output.console()
    for group in dict.fromkeys(one.group for one in found):
        console.print(f"\n{group}")
        for one in found:
            if one.group == group:
                needed = f"  (needs {one.needed})" if one.needed else ""
                state = output.plain(f"  {one.state:<7}", styles[one.state])
                console.print(
                    state, output.plain(as_typed(f" {one.name:<16}  {one.found}{needed}"))
                )
    fixes = [as_typed(f"{one.name}: {one.fix}") for one in found if one.fix]
    if fixes:
        console.print("\nwhat to do:")
        for fix in fixes:
            output.say(f"  {fix}")
