# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds a kernel with its drivers from a `KernelSpec`.

`build_spec` plans the build: the patched tree, and every driver that can be built in it. `kernel`
and `modules` build, or use the cache.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
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
    """The build of a kernel from source, with all drivers that can be built in its tree.

    All drivers are enabled, so that the choice of drivers for a run does not change the kernel. A
    driver that cannot be built is omitted, with the reason in `omitted`. Raises UsageError and
    Failure as `sources.fetch` and `series.applied` do.
    """
    tree = sources.fetch(spec.kernel, catalog.find(spec.kernel), tools)
    tree = series.applied(tree, spec.series, tools, spec.series_version)
    drivers = patch_drivers(spec)
    for driver in drivers:
        if driver.absent_from(tree):
            tree = series.applied(tree, [driver.patches], tools)
    return _build_spec_in(tree, spec, tools, drivers)


def build_spec_in(tree: Tree, spec: KernelSpec, tools: ToolRoot) -> BuildSpec:
    """Like `build_spec`, for a tree that has been fetched and patched."""
    return _build_spec_in(tree, spec, tools, patch_drivers(spec))


def _build_spec_in(
    tree: Tree, spec: KernelSpec, tools: ToolRoot, drivers: Sequence[Manifest]
) -> BuildSpec:
    toolchain = _toolchain(spec, tools)
    toolchains.check(tree, toolchain)
    no_rust = toolchains.rust_problem(tree, toolchain)
    planned = _build_spec(tree, spec, tools, drivers, toolchain, no_rust)
    if not no_rust and (no_rust := rust_support.known(planned)):
        return _build_spec(tree, spec, tools, drivers, toolchain, no_rust)
    return planned


def _build_spec(
    tree: Tree,
    spec: KernelSpec,
    tools: ToolRoot,
    drivers: Sequence[Manifest],
    toolchain: Toolchain,
    no_rust: str,
) -> BuildSpec:
    omitted = {"Rust": no_rust} if no_rust else {}
    fragments = [shipped_fragment("base")]
    if not no_rust:
        fragments.append(shipped_fragment("rust"))
    for driver in (*map(manifest.load, manifest.names()), *drivers):
        if reason := driver.unbuildable(tree, no_rust):
            omitted[driver.name] = reason
        else:
            fragments.append(driver.fragment)
    fragments += variants.fragments(spec.variant, rust=not no_rust)
    fragments = [adapted(fragment, tree.version) for fragment in fragments]
    fragments += [read_fragment(path) for path in spec.fragments]
    entry = catalog.find(spec.kernel)
    # modules that are built on their own do not change the kernel
    folders = tuple(Path(driver.folder) for driver in drivers)
    part = replace(spec, modules=folders)
    objects = ccache.objects(entry, tree, toolchain, (*spec.fragments, *folders), part.options)
    return BuildSpec(spec.name, tree, tuple(fragments), toolchain, tools, omitted, objects)


def _toolchain(spec: KernelSpec, tools: ToolRoot) -> Toolchain:
    if spec.toolchain == "host":
        return from_host(spec.compiler)
    return toolchains.from_root(tools, spec.compiler)


def kernel(spec: KernelSpec, tools: ToolRoot) -> Kernel:
    """The kernel, from the cache or newly built.

    Raises UsageError for build options of a kernel that Debian has built, and Failure with the path
    of the log when the build fails.
    """
    entry = catalog.find(spec.kernel)
    if isinstance(entry, DebianImage):
        if spec != KernelSpec(spec.kernel, modules=spec.modules):
            raise UsageError(
                f"kernel {spec.kernel} was built by Debian: variants, fragments, patches and "
                "toolchains need a kernel that is built here"
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
    """The drivers in `spec.modules`; raises UsageError for two with the same name."""
    drivers: dict[str, Manifest] = {}
    for folder in spec.modules:
        driver = manifest.of_folder(folder)
        if other := drivers.get(driver.name):
            raise UsageError(
                f"{folder} and {other.folder} are both the driver {driver.name!r}",
                hint="rename one of the folders",
            )
        drivers[driver.name] = driver
    return tuple(drivers.values())


def patch_drivers(spec: KernelSpec) -> tuple[Manifest, ...]:
    """The drivers in `spec.modules` that are patches for the kernel tree."""
    return tuple(driver for driver in out_of_tree(spec) if driver.series)


def modules(spec: KernelSpec, built: Kernel, tools: ToolRoot, *, all_: bool) -> list[Path]:
    """The cache entries with the modules of `spec.modules`; built if they are missing.

    A driver that cannot be built for this kernel is left out: its tests are skipped with the
    reason. With `all_` it raises Failure.
    """
    fitting = []
    for driver in out_of_tree(spec):
        reason = driver.missing_from(built)
        if reason and all_:
            raise Failure(reason)
        if not reason and driver.out_of_tree:
            fitting.append(driver)
    build_env = module_build_env(spec, built, tools)
    return external.build_modules(fitting, built, build_env, tools)


def module_build_env(spec: KernelSpec, built: Kernel, tools: ToolRoot) -> external.ModuleBuildEnv:
    """The sandbox and the make command for building modules for a kernel."""
    entry = catalog.find(spec.kernel)
    if isinstance(entry, DebianImage):

        def with_headers() -> AbstractContextManager[tuple[Sandbox, list[str]]]:
            headers = debian.headers(spec.kernel, entry, tools)
            return contextlib.nullcontext(module_make(headers, built.info.release, tools))

        return with_headers
    # computed once, for the first module that is built: for a directory it takes a second
    planned = functools.cache(lambda: _same_build(built, spec, tools))

    @contextlib.contextmanager
    def with_output_tree() -> Iterator[tuple[Sandbox, list[str]]]:
        with build.ready_for_modules(planned()):
            yield planned().module_make()

    return with_output_tree


def _same_build(built: Kernel, spec: KernelSpec, tools: ToolRoot) -> BuildSpec:
    planned = build_spec(spec, tools)
    if planned.key != built.info.key:  # a branch has moved, or a directory was edited
        raise Failure(
            f"the source of kernel {spec.name} has changed since it was built", hint="start again"
        )
    return planned
