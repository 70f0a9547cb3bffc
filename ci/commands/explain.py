# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv kernel.explain`: a symbol of a kernel that is built here, or of a distribution's."""

from __future__ import annotations

from blockyard.kernel import catalog
from blockyard.kernel.build import configure
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.catalog import DebianImage
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.installation import as_typed
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan


def why(choice: KernelSpec, symbol: str, tools: ToolRoot) -> str:
    """In words: why a symbol is on, off or impossible; raises UsageError for what is no name."""
    name = configure.checked(symbol.removeprefix("CONFIG_"))
    if isinstance(catalog.find(choice.kernel), DebianImage):
        return _told_by_the_config(choice, name, tools)
    job = plan.build_spec(choice, tools)
    return configure.why(job, name, drivers_left_out(job, name))


def drivers_left_out(job: BuildSpec, symbol: str) -> list[str]:
    """Why the kernel is built without the drivers that a symbol stands for."""
    return [
        f"the driver {name} is left out of kernel {job.name}: {reason}"
        for name, reason in job.omitted.items()
        if name in manifest.names() and symbol in manifest.load(name).symbols
    ]


def _told_by_the_config(choice: KernelSpec, symbol: str, tools: ToolRoot) -> str:
    kernel = plan.kernel(choice, tools)
    value = kernel.config.get(symbol, "n")
    lines = [
        f"{symbol} is {value} in the configuration of {kernel.info.source}",
        "  that is all a distribution's packages tell: Kconfig files come with source trees",
    ]
    source = choice.kernel.removesuffix("-debian")
    if source != choice.kernel and source in catalog.catalog():
        command = as_typed(f"./inv kernel.explain {symbol} --kernel {source}")
        lines += ["  what to do:", f"    - {command}"]
    return "\n".join(lines)
