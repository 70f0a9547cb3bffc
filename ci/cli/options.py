# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share: for each, the name of its value and its help text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec

Help = Mapping[str, tuple[str, str]]  # option → name of its value, help text

# Which kernel, and how it is built. The defaults are those of `KernelSpec`.
KERNEL: Help = {
    "kernel": ("KERNEL", "a name (./inv kernel.list), DIRECTORY, REPOSITORY#REF or tarball"),
    "variant": (
        "NAME",
        "plain, debug, faults, kasan, ubsan, symbols or big (kernel/fragments/variants)",
    ),
    "fragment": ("FILES", "your Kconfig fragments; the last one wins"),
    "toolchain": ("NAME", "pinned (Debian's compilers, the same everywhere) or host (on PATH)"),
    "compiler": ("NAME", "llvm or gcc"),
    "module": ("FOLDERS", "sources of modules outside the kernel tree (see modules/examples)"),
    "series": ("PATHS", "patch series to apply: each a folder, an mbox or a patch"),
    "series_version": ("N", "version of the series, if a thread has several"),
}
LISTS = ("kernel", "fragment", "module", "series")  # may be repeated; the others may not
SEVERAL_KERNELS = ("KERNELS", f"{KERNEL['kernel'][1]}; several with commas, or repeated")

SHARED: Help = {
    "accel": ("NAME", "auto (KVM if it works), kvm or tcg"),
    "console": ("NAMES", "serial, ssh or both"),
    "dry_run": ("", "print what would be done, and change nothing"),
    "guests": ("N", "guests that run at the same time; 0: one per two CPUs, at least two"),
    "json": ("", "print JSON"),
    "k": ("PATTERN", "only tests whose names match, as pytest's -k"),
    "list_": ("", "print the names of the tests and run nothing"),
    "output": ("FILE", "also write the table to a Markdown file"),
    "start": (
        "HOW",
        "boot, snapshot (of a booted guest), or auto: whichever is faster",
    ),
    "suite": ("NAMES", "suites in tests/suites, or all"),
    "topology": ("NAME", "the guest's hardware: a name in images/topologies, or a TOML file"),
    "variant": KERNEL["variant"],
}
# Options that write to the checkout; help lists them apart.
DEVELOPERS = ("write",)
# Commands that need files that only a checkout has: its tests, its documentation, ./inv.
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
            "kernel": (commas.escaped(cell.kernel),) if cell.kernel else (),
            "variant": cell.variant,
            "topology": cell.topology,
        }
        for cell in found
    ]


def kernel_spec(command: str, values: Mapping[str, Any]) -> KernelSpec:
    """The kernel that the options of `KERNEL` describe; options that are not given have defaults.

    Raises UsageError for an unknown name or a missing path. command: for messages.
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
