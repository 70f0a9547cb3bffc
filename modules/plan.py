# SPDX-License-Identifier: GPL-2.0-or-later
"""From a kernel's specification to a kernel with drivers.

`build_spec` plans the build: the tree with its patches, and every driver that can be built in it.
`kernel` and `modules` build, or take from the cache what was built before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

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
from blockyard.kernel.config.fragments import read_fragment, shipped_fragment
from blockyard.kernel.config.quirks import adapted
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.progress import note
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources import debian, series
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import external, manifest
from blockyard.modules.manifest import Manifest


def build_spec(spec: KernelSpec, tools: ToolRoot) -> BuildSpec:
    """The build of a source kernel with all drivers that have a manifest and can be built in it.

    All of them, so that choosing a driver for a run never asks for another kernel. What cannot be
    built is left out; `omitted` has the reason. Raises UsageError and Failure as `sources.fetch`
    and `series.applied` do.
    """
    tree = sources.fetch(spec.kernel, catalog.find(spec.kernel), tools)
    tree = series.applied(tree, spec.series, tools, spec.series_version)
    for driver in patch_drivers(spec):
        if driver.absent_from(tree):
            tree = series.applied(tree, [driver.patches], tools)
    return build_spec_in(tree, spec, tools)


def build_spec_in(tree: Tree, spec: KernelSpec, tools: ToolRoot) -> BuildSpec:
    """The same for a tree that has been fetched and patched."""
    toolchain = _toolchain(spec, tools)
    toolchains.check(tree, toolchain)
    no_rust = toolchains.rust_problem(tree, toolchain)
    planned = _build_spec(tree, spec, tools, toolchain, no_rust)
    if not no_rust and (no_rust := rust_support.known(planned)):
        return _build_spec(tree, spec, tools, toolchain, no_rust)
    return planned


def _build_spec(
    tree: Tree, spec: KernelSpec, tools: ToolRoot, toolchain: Toolchain, no_rust: str
) -> BuildSpec:
    omitted = {"Rust": no_rust} if no_rust else {}
    fragments = [shipped_fragment("base")]
    if not no_rust:
        fragments.append(shipped_fragment("rust"))
    for driver in (*map(manifest.load, manifest.names()), *patch_drivers(spec)):
        if reason := driver.unbuildable(tree, no_rust):
            omitted[driver.name] = reason
        else:
            fragments.append(driver.fragment)
    fragments += variants.fragments(spec.variant, rust=not no_rust)
    fragments = [adapted(fragment, tree.version) for fragment in fragments]
    fragments += [read_fragment(path) for path in spec.fragments]
    entry = catalog.find(spec.kernel)
    # folders of modules that are built on their own have no part in the kernel
    part = replace(spec, modules=tuple(Path(driver.folder) for driver in patch_drivers(spec)))
    own = (*spec.fragments, *(Path(driver.folder) for driver in patch_drivers(spec)))
    objects = ccache.objects(entry, tree, toolchain, own, part.options)
    return BuildSpec(spec.name, tree, tuple(fragments), toolchain, tools, omitted, objects)


def _toolchain(spec: KernelSpec, tools: ToolRoot) -> Toolchain:
    if spec.toolchain == "host":
        return from_host(spec.compiler)
    return toolchains.from_root(tools, spec.compiler)


def kernel(spec: KernelSpec, tools: ToolRoot) -> Kernel:
    """The kernel, from the cache or built now.

    Raises UsageError for Debian's own kernel with options of a build, and Failure with the log's
    path for a build that fails.
    """
    entry = catalog.find(spec.kernel)
    if isinstance(entry, DebianImage):
        if spec != KernelSpec(spec.kernel, modules=spec.modules):
            raise UsageError(
                f"kernel {spec.kernel} is Debian's own build: variants, fragments, patches and "
                "toolchains are for kernels that are built here"
            )
        files = debian.image_files(spec.kernel, entry, tools)
        return prebuilt(spec.kernel, files, tools, headers=bool(entry.headers))
    planned = build_spec(spec, tools)
    try:
        return build.build(planned)
    except SymbolsDropped as lost:
        if not rust_support.record(planned, lost):
            raise
        note(f"kernel {spec.name} is built without Rust: {lost.reasons['RUST']}")
    return build.build(build_spec(spec, tools))


def out_of_tree(spec: KernelSpec) -> tuple[Manifest, ...]:
    """The drivers in `spec.modules`; raises UsageError for two of one name."""
    found: dict[str, Manifest] = {}
    for folder in spec.modules:
        driver = manifest.of_folder(folder)
        if other := found.get(driver.name):
            raise UsageError(
                f"{folder} and {other.folder} are both the driver {driver.name!r}",
                hint="rename one of the folders",
            )
        found[driver.name] = driver
    return tuple(found.values())


def patch_drivers(spec: KernelSpec) -> tuple[Manifest, ...]:
    """Those of `out_of_tree` that come with patches for the kernel tree."""
    return tuple(driver for driver in out_of_tree(spec) if driver.series)


def modules(spec: KernelSpec, built: Kernel, tools: ToolRoot, *, all_: bool) -> list[Path]:
    """The folders that hold the modules of the drivers out of tree, built if need be.

    A driver that does not fit the kernel is left to the tests, which are skipped with the reason;
    with `all_` it raises Failure.
    """
    fitting = []
    for driver in out_of_tree(spec):
        reason = driver.missing_from(built)
        if reason and all_:
            raise Failure(reason)
        if not reason and driver.out_of_tree:
            fitting.append(driver)
    maker = module_build_env(spec, built, tools)
    return external.build_modules(fitting, built, maker, tools)


def module_build_env(spec: KernelSpec, built: Kernel, tools: ToolRoot) -> external.ModuleBuildEnv:
    """The sandbox and the make command that build modules for a kernel."""
    entry = catalog.find(spec.kernel)
    if isinstance(entry, DebianImage):

        def debians() -> AbstractContextManager[tuple[Sandbox, list[str]]]:
            headers = debian.headers(spec.kernel, entry, tools)
            return contextlib.nullcontext(module_make(headers, built.info.release, tools))

        return debians
    # looked at when the first module is built, and once: it takes a second for a directory
    planned = functools.cache(lambda: _same_build(built, spec, tools))

    @contextlib.contextmanager
    def ours() -> Iterator[tuple[Sandbox, list[str]]]:
        with build.ready_for_modules(planned()):
            yield planned().module_make()

    return ours


def _same_build(built: Kernel, spec: KernelSpec, tools: ToolRoot) -> BuildSpec:
    planned = build_spec(spec, tools)
    if planned.key != built.info.key:  # a branch that moved, a directory that was edited
        raise Failure(f"the source of kernel {spec.name} changed meanwhile", hint="start again")
    return planned
