# SPDX-License-Identifier: GPL-2.0-or-later
"""From the names that a user types to a kernel, its guest's files and an accelerator.

Names are checked before anything long begins.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blockyard.images.boot import boot
from blockyard.images.errors import GuestError
from blockyard.images.files import GuestFiles, guest_files
from blockyard.images.hardware.topology import DEFAULT, Topology
from blockyard.images.machine import accelerator
from blockyard.images.machine.accelerator import Accelerator
from blockyard.images.machine.qemu import PACKAGE
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel import catalog, sources
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.build import build, ccache, rust_support
from blockyard.kernel.build import toolchain as toolchains
from blockyard.kernel.build.configure import SymbolsDropped
from blockyard.kernel.build.path_toolchain import from_host
from blockyard.kernel.build.prebuilt import module_make, prebuilt
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.build.toolchain import Toolchain
from blockyard.kernel.catalog import DebianImage
from blockyard.kernel.config import variants
from blockyard.kernel.config.fragments import own_fragment, read_fragment
from blockyard.kernel.config.quirks import adapted
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot, tool_root
from blockyard.kernel.host.errors import Failure, UsageError, unknown
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources import debian, series
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import external, manifest
from blockyard.modules.manifest import Manifest

CONSOLES = ("serial", "ssh")
GUESTS_KEPT = 20  # folders of guests that failed


@dataclass(frozen=True)
class BootEnv:
    """What booting takes."""

    kernel: Kernel
    tools: ToolRoot
    files: GuestFiles
    accelerator: Accelerator

    def setup(self, directory: Path, *, topology: Topology = DEFAULT, **options: Any) -> VmConfig:
        """One guest of it; options: those of images.machine.vm_config.Setup, such as ssh=True."""
        return VmConfig(
            kernel=self.kernel,
            files=self.files,
            tools=self.tools,
            accelerator=self.accelerator,
            topology=topology,
            directory=directory,
            **options,
        )


@contextlib.contextmanager
def guest_directory() -> Iterator[Path]:
    """A folder for a guest that is part of no run; kept, for its logs, when the guest fails."""
    store.remove_old("guests", GUESTS_KEPT)
    folder = Path(tempfile.mkdtemp(prefix="guest-", dir=store.work_directory("guests")))
    try:
        with store.in_use(folder):
            yield folder
    except GuestError:
        raise
    except BaseException:
        store.remove(folder)
        raise
    store.remove(folder)


def parse_names(kind: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """The names in a comma-separated option (all when it is empty), each one known."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if text and not names:
        raise UsageError(f"no {kind} in {text!r}")
    return names or tuple(known)


def kernel_job(choice: KernelSpec, tools: ToolRoot) -> BuildSpec:
    """The build of a source kernel with all drivers that have a manifest and can be built in it.

    All of them, so that choosing a driver for a run never asks for another kernel. What cannot be
    built is left out, and why is told by the kernel.
    """
    tree = sources.fetch(choice.kernel, catalog.find(choice.kernel), tools)
    tree = series.applied(tree, choice.series, tools, choice.series_version)
    for driver in patch_drivers(choice):
        if driver.absent_from(tree):
            tree = series.applied(tree, [driver.patches], tools)
    return job_in(tree, choice, tools)


def job_in(tree: Tree, choice: KernelSpec, tools: ToolRoot) -> BuildSpec:
    """The same for a tree that is there already."""
    toolchain = _toolchain(choice, tools)
    toolchains.check(tree, toolchain)
    no_rust = toolchains.rust_problem(tree, toolchain)
    job = _job(tree, choice, tools, toolchain, no_rust)
    if not no_rust and (no_rust := rust_support.known(job)):
        return _job(tree, choice, tools, toolchain, no_rust)
    return job


def _job(
    tree: Tree, choice: KernelSpec, tools: ToolRoot, toolchain: Toolchain, no_rust: str
) -> BuildSpec:
    omitted = {"Rust": no_rust} if no_rust else {}
    fragments = [own_fragment("base")]
    if not no_rust:
        fragments.append(own_fragment("rust"))
    for driver in (*map(manifest.load, manifest.names()), *patch_drivers(choice)):
        if reason := driver.unbuildable(tree, no_rust):
            omitted[driver.name] = reason
        else:
            fragments.append(driver.fragment)
    fragments += variants.fragments(choice.variant, rust=not no_rust)
    fragments = [adapted(fragment, tree.version) for fragment in fragments]
    fragments += [read_fragment(path) for path in choice.fragments]
    entry = catalog.find(choice.kernel)
    # folders of modules that are built on their own have no part in the kernel
    part = replace(choice, modules=tuple(Path(driver.folder) for driver in patch_drivers(choice)))
    own = (*choice.fragments, *(Path(driver.folder) for driver in patch_drivers(choice)))
    objects = ccache.objects(entry, tree, toolchain, own, part.options)
    return BuildSpec(choice.name, tree, tuple(fragments), toolchain, tools, omitted, objects)


def _toolchain(choice: KernelSpec, tools: ToolRoot) -> Toolchain:
    if choice.toolchain == "host":
        return from_host(choice.compiler)
    return toolchains.from_root(tools, choice.compiler)


def kernel(choice: KernelSpec, tools: ToolRoot) -> Kernel:
    """The kernel that was chosen, from the cache or made now."""
    entry = catalog.find(choice.kernel)
    if isinstance(entry, DebianImage):
        if choice != KernelSpec(choice.kernel, modules=choice.modules):
            raise UsageError(
                f"kernel {choice.kernel} is Debian's own build: variants, fragments, patches and "
                "toolchains are for kernels that are built here"
            )
        files = debian.image_files(choice.kernel, entry, tools)
        return prebuilt(choice.kernel, files, tools, headers=bool(entry.headers))
    job = kernel_job(choice, tools)
    try:
        return build.build(job)
    except SymbolsDropped as lost:
        if not rust_support.record(job, lost):
            raise
        note(f"kernel {choice.name} is built without Rust: {lost.reasons['RUST']}")
    return build.build(kernel_job(choice, tools))


def out_of_tree(choice: KernelSpec) -> tuple[Manifest, ...]:
    """The drivers that are not in Linux and were chosen, by their folders."""
    found: dict[str, Manifest] = {}
    for folder in choice.modules:
        driver = manifest.of_folder(folder)
        if other := found.get(driver.name):
            raise UsageError(
                f"{folder} and {other.folder} are both the driver {driver.name!r}",
                hint="rename one of the folders",
            )
        found[driver.name] = driver
    return tuple(found.values())


def patch_drivers(choice: KernelSpec) -> tuple[Manifest, ...]:
    """Those of them that come with patches for the kernel tree."""
    return tuple(driver for driver in out_of_tree(choice) if driver.series)


def modules(choice: KernelSpec, built: Kernel, tools: ToolRoot, *, all_: bool) -> list[Path]:
    """The folders that hold the modules of the drivers outside the tree, built if need be.

    A driver that does not fit the kernel is left to the tests, which are skipped with the reason;
    with `all_` it raises Failure.
    """
    fitting = []
    for driver in out_of_tree(choice):
        reason = driver.missing_from(built)
        if reason and all_:
            raise Failure(reason)
        if not reason and driver.out_of_tree:
            fitting.append(driver)
    maker = module_maker(choice, built, tools)
    return external.build_modules(fitting, built, maker, tools)


def module_maker(choice: KernelSpec, built: Kernel, tools: ToolRoot) -> external.ModuleBuildEnv:
    """What gives the sandbox and the make that build modules for a kernel."""
    entry = catalog.find(choice.kernel)
    if isinstance(entry, DebianImage):

        def debians() -> AbstractContextManager[tuple[Sandbox, list[str]]]:
            headers = debian.headers(choice.kernel, entry, tools)
            return contextlib.nullcontext(module_make(headers, built.info.release, tools))

        return debians
    # looked at when the first module is built, and once: it takes a second for a directory
    job = functools.cache(lambda: _job_of(built, choice, tools))

    @contextlib.contextmanager
    def ours() -> Iterator[tuple[Sandbox, list[str]]]:
        with build.ready_for_modules(job()):
            yield job().module_make()

    return ours


def _job_of(built: Kernel, choice: KernelSpec, tools: ToolRoot) -> BuildSpec:
    job = kernel_job(choice, tools)
    if job.key != built.info.key:  # a branch that moved, a directory that was edited
        raise Failure(f"the source of kernel {choice.name} changed meanwhile", hint="start again")
    return job


def ready(choice: KernelSpec, accel: str = "auto", *, all_modules: bool = True) -> BootEnv:
    """Everything to boot guests of that kernel, made if need be; see `modules`."""
    accelerator.check(accel)
    out_of_tree(choice)
    tools = tool_root()
    built = kernel(choice, tools)
    files = guest_files(built, tools, modules(choice, built, tools, all_=all_modules))

    def probe(candidate: Accelerator) -> None:
        trial = BootEnv(built, tools, files, candidate)
        with guest_directory() as folder, boot(trial.setup(folder)) as guest:
            guest.serial.check("true")

    qemu_version = tools.versions[PACKAGE]
    return BootEnv(built, tools, files, accelerator.choose(accel, qemu_version, probe))
