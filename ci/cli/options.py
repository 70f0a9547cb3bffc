# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share, as data: what their value is called and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec

Help = Mapping[str, tuple[str, str]]  # option → name of its value, what it does

# Which kernel, and how it is built. The defaults are those of `KernelSpec`.
KERNEL: Help = {
    "kernel": ("KERNEL", "a name (./inv kernel.list), DIRECTORY, REPOSITORY#REF or tarball"),
    "variant": (
        "NAME",
        "plain, debug, faults, kasan, ubsan, symbols or big (kernel/fragments/variants)",
    ),
    "fragment": ("FILES", "Kconfig fragments of your own; the last one wins"),
    "toolchain": ("NAME", "pinned (Debian's compilers, the same everywhere) or host (on PATH)"),
    "compiler": ("NAME", "llvm or gcc"),
    "module": ("FOLDERS", "sources of modules outside the kernel tree (modules/examples)"),
    "series": ("PATHS", "patch series for the tree: each a folder, an mbox or one patch"),
    "series_version": ("N", "which version of the series, where a thread has several"),
}
LISTS = ("kernel", "fragment", "module", "series")  # of these; the others take one value
SEVERAL_KERNELS = ("KERNELS", f"{KERNEL['kernel'][1]}; several with commas, or repeated")

SHARED: Help = {
    "accel": ("NAME", "auto (KVM where it really works), kvm or tcg"),
    "console": ("NAMES", "serial, ssh or both"),
    "dry_run": ("", "only print what would be done"),
    "guests": ("N", "how many guests run side by side; 0: one per two CPUs, at least two"),
    "json": ("", "print JSON"),
    "k": ("PATTERN", "only tests whose names match, as pytest's -k"),
    "list_": ("", "print the names of the tests and run nothing"),
    "output": ("FILE", "write the table as a page in Markdown, too"),
    "start": (
        "HOW",
        "boot; snapshot (of a guest that has booted); auto: a snapshot where that is quicker",
    ),
    "suite": ("NAMES", "of tests/suites; all: all of them"),
    "topology": ("NAME", "the guest's hardware: one of images/topologies, or a TOML file of yours"),
    "variant": KERNEL["variant"],
}
# Options that write into the checkout: for those who work on Blockyard itself.
DEVELOPERS = ("write",)
# Commands that read or write what only a checkout has: its tests, its documentation, ./inv.
IN_A_CHECKOUT = ("dev.check", "dev.selfbench", "dev.docs", "dev.graph")


def cells(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The values of `blockyard test`, once for each run that the project's file asks for.

    Empty where there is no such file. Raises UsageError for a mistake in it.
    """
    from pathlib import Path

    from blockyard.ci import project, project_file

    path = project_file.find(Path.cwd())
    if path is None:
        return []
    from blockyard.kernel import commas
    from blockyard.kernel.host.errors import UsageError

    mine = project.read(path)
    kernel = commas.one_kernel(values["kernel"] or (), "test") or ""
    found = project.cells(mine, kernel, values["variant"], values["topology"])
    if values["resume"] and len(found) > 1:
        raise UsageError(
            f"--resume goes on with one run, and {path} asks for {len(found)}",
            hint="name one of each: --kernel, --variant, --topology",
        )
    same = {
        "driver": values["driver"] or mine.drivers,
        "console": values["console"] or mine.consoles,
        "suite": values["suite"] or mine.suites,
    }
    for option, paths in {
        "module": mine.modules,
        "series": mine.series,
        "fragment": mine.fragments,
    }.items():
        same[option] = values[option] or tuple(paths)
    return [
        {
            **values,
            **same,
            "kernel": (cell.kernel.replace(",", "\\,"),) if cell.kernel else (),
            "variant": cell.variant,
            "topology": cell.topology,
        }
        for cell in found
    ]


def kernel_spec(command: str, values: Mapping[str, Any]) -> KernelSpec:
    """The kernel that the options of `KERNEL` describe; what was not given keeps its default.

    Raises UsageError for what is not there or not known.
    """
    from blockyard.kernel import commas
    from blockyard.kernel.spec import KernelSpec, numbered

    given: dict[str, Any] = {name: value for name, value in values.items() if value}
    words = ("variant", "toolchain", "compiler")
    chosen: dict[str, Any] = {name: given[name] for name in words if name in given}
    if kernel := commas.one_kernel(given.get("kernel", ()), command):
        chosen["kernel"] = kernel
    for name, field in {"fragment": "fragments", "module": "modules", "series": "series"}.items():
        if name in given:
            chosen[field] = tuple(path for text in given[name] for path in commas.paths(text))
    version = numbered("--series-version", given.get("series_version", ""))
    return KernelSpec(**chosen, series_version=version).checked()
