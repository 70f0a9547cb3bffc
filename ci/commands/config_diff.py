# SPDX-License-Identifier: GPL-2.0-or-later
"""`kernel.diff`: compares two configurations, each of a file or a kernel.

The configuration of a built kernel comes from the cache; any other kernel is configured, not built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from blockyard.ci import output
from blockyard.kernel import artifact, catalog
from blockyard.kernel.build import configure, toolchain
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.catalog import DebianImage
from blockyard.kernel.config import diff, kconfig, variants
from blockyard.kernel.config.diff import TOOLS, Differences, Pair, pairs
from blockyard.kernel.host import packed, store, untrusted
from blockyard.kernel.host.debian import tool_root
from blockyard.kernel.host.errors import UsageError
from blockyard.kernel.host.progress import note, step
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan


@dataclass(frozen=True)
class Side:
    """One of the two configurations, with what a user called it."""

    name: str  # what the user typed
    config: Mapping[str, str]  # symbol → value
    tools: Mapping[str, str] = field(default_factory=dict)  # tool → oldest version that works

    @property
    def drivers(self) -> dict[str, str]:
        """Driver → "module", "built in" or "-"."""
        return {
            driver.name: self._driver(driver) for driver in map(manifest.load, manifest.names())
        }

    def _driver(self, driver: manifest.Manifest) -> str:
        if driver.off_in(self.config):
            return "-"
        values = {self.config[symbol] for symbol in driver.symbols}
        return "built in" if values == {"y"} else "module"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The differences: symbols, drivers, oldest tools. `a` is the old side, `b` the new one."""

    a: str
    b: str
    symbols: Differences
    drivers: dict[str, Pair]
    tools: dict[str, Pair]  # the oldest version that works; empty for a file


def report(a: str, b: str) -> Report:
    """Compares two configurations; `a` and `b` are a file, or KERNEL[:VARIANT].

    Raises UsageError for an unknown kernel or a file that cannot be read.
    """
    # check both names before the first download
    old, new = (text if _is_config(text) else parse_kernel(text) for text in (a, b))
    first, second = side(a, old), side(b, new)
    return Report(
        a=a,
        b=b,
        symbols=diff.compare(first.config, second.config),
        drivers=pairs(first.drivers, second.drivers),
        tools=pairs(first.tools, second.tools),
    )


def _is_config(text: str) -> bool:
    """Whether the text names a file other than a tarball."""
    path = Path(text)  # may be a pipe, from <(...)
    return path.exists() and not path.is_dir() and not catalog.TARBALL.search(text)


def parse_kernel(text: str) -> KernelSpec:
    """Parses KERNEL[:VARIANT]; a URL's colon separates no variant. Raises UsageError."""
    name, _, variant = text.rpartition(":")
    if name and variant in variants.names():
        return KernelSpec(name, variant).checked()
    if name and "/" not in variant and name in catalog.catalog():
        return KernelSpec(name, variant).checked()  # raises the error for an unknown variant
    try:
        return KernelSpec(text).checked()
    except UsageError as error:
        hint = f"{error.hint} (or give a .config file, or KERNEL:VARIANT)"
        raise UsageError(error.what, hint=hint) from None


def side(name: str, what: str | KernelSpec) -> Side:
    """Reads a file, or a kernel's configuration, which may fetch and configure the kernel."""
    if isinstance(what, str):
        return Side(name, _file(Path(what)))
    tools = tool_root()
    if isinstance(catalog.find(what.kernel), DebianImage):
        return Side(name, plan.kernel(what, tools).config)
    job = plan.build_spec(what, tools)
    return Side(name, _config(job), _minima(job.tree))


def _file(path: Path) -> dict[str, str]:
    what = "the configuration"
    data = untrusted.read_input(path, what, untrusted.CONFIG_BYTES)  # /proc/config.gz is compressed
    try:
        text = packed.unpacked(data, str(path), untrusted.CONFIG_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"cannot read {what} {path}: not UTF-8 text") from None
    return kconfig.parse(text, str(path))


def _config(job: BuildSpec) -> Mapping[str, str]:
    if path := store.use("kernels", job.key):
        return artifact.load(path, job.name).config
    with (
        store.locked("builds", job.out_key, f"the build of {job.name}"),
        step(f"configuring kernel {job.name}", log=job.log),
    ):
        merged = configure.write_config(job)
        config = kconfig.parse(untrusted.read_text(job.out, ".config", untrusted.CONFIG_BYTES))
    if dropped := kconfig.prove(merged.requests, config):
        names = ", ".join(f"CONFIG_{symbol.symbol}" for symbol in dropped)
        note(f"kernel {job.name} cannot be built: its configuration lost {names}")
    return config


def _minima(tree: Tree) -> dict[str, str]:
    return {tool: toolchain.minimum(tree, tool) for tool in TOOLS}


def show(a: str, b: str, *, as_json: bool) -> None:
    """Prints the differences as JSON, or in the format of the kernel's scripts/diffconfig."""
    differences = report(a, b)
    if as_json:
        print(output.as_json(differences))
        return
    symbols = differences.symbols
    lines = [f"from {a} to {b}:"]
    lines += [f"-{symbol} {value}" for symbol, value in symbols.removed.items()]
    lines += [f" {symbol} {pair.a} -> {pair.b}" for symbol, pair in symbols.changed.items()]
    lines += [f"+{symbol} {value}" for symbol, value in symbols.added.items()]
    counts = (len(symbols.removed), len(symbols.changed), len(symbols.added))
    lines += ["", "{} removed, {} changed, {} added".format(*counts)]
    lines += _table("drivers", differences.drivers)
    lines += _table("oldest tools", differences.tools)
    output.say("\n".join(lines))


def _table(title: str, rows: Mapping[str, Pair]) -> list[str]:
    if not rows:
        return []
    return [
        "",
        f"{title}:",
        *(
            f"  {name:<10} {pair.a or '-':<10} {pair.b or '-'}".rstrip()
            + ("" if pair.a == pair.b else "   differs")
            for name, pair in rows.items()
        ),
    ]
