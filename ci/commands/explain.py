# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv kernel.explain`: explains a symbol of a source tree, or of Debian's own build."""

from __future__ import annotations

from blockyard.kernel import catalog
from blockyard.kernel.build import configure
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.catalog import DebianImage
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.installation import as_typed
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan


def why(spec: KernelSpec, symbol: str, tools: ToolRoot) -> str:
    """Explains why a symbol is on, off or impossible; raises UsageError for an invalid name."""
    name = configure.checked(symbol.removeprefix("CONFIG_"))
    if isinstance(catalog.find(spec.kernel), DebianImage):
        return _value_in_config(spec, name, tools)
    job = plan.build_spec(spec, tools)
    return configure.why(job, name, omitted_drivers(job, name))


def omitted_drivers(job: BuildSpec, symbol: str) -> list[str]:
    """Reasons why drivers that need a symbol are not built in this kernel."""
    return [
        f"the driver {name} is left out of kernel {job.name}: {reason}"
        for name, reason in job.omitted.items()
        if name in manifest.names() and symbol in manifest.load(name).symbols
    ]


def _value_in_config(spec: KernelSpec, symbol: str, tools: ToolRoot) -> str:
    kernel = plan.kernel(spec, tools)
    value = kernel.config.get(symbol, "n")
    lines = [
        f"{symbol} is {value} in the configuration of {kernel.info.source}",
        "  no more is known: a distribution's packages have no Kconfig files",
    ]
    source = spec.kernel.removesuffix("-debian")
    if source != spec.kernel and source in catalog.catalog():
        command = as_typed(f"./inv kernel.explain {symbol} --kernel {source}")
        lines += ["  what to do:", f"    - {command}"]
    return "\n".join(lines)
