# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that inspect this machine, a kernel's configuration or a patch series."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invoke.context import Context
from invoke.exceptions import Exit

from blockyard.ci.cli import options
from blockyard.ci.cli.command import Group, command

if TYPE_CHECKING:
    from blockyard.kernel.spec import KernelSpec


@command(
    "doctor",
    Group.LOOK,
    "doctor",
    "doctor --json > doctor.json  # for a bug report",
    ends={0: "nothing is missing", 1: "the machine lacks something that Blockyard needs"},
)
def doctor(c: Context, json: bool = False) -> None:
    """Check this machine; say how to get what is missing.

    Installs, fetches and builds nothing.
    """
    from blockyard.ci.commands import doctor as examination

    if not examination.show(as_json=json):
        raise Exit(code=1)


@command(
    "kernel.explain",
    Group.LOOK,
    "kernel.explain BLK_DEV_RUST_NULL",
    "kernel.explain CONFIG_KASAN --kernel 6.12 --variant kasan",
    on_a_kernel=True,
    help={"symbol": ("SYMBOL", "a Kconfig symbol, with or without CONFIG_")},
    ends={0: "the symbol was explained"},
)
def explain(c: Context, spec: KernelSpec, symbol: str) -> None:
    """Say why a Kconfig symbol is on, off or impossible.

    Fetches the kernel's source if it is not in the cache; compiles nothing.
    """
    from blockyard.ci import output
    from blockyard.ci.commands import explain as explanation
    from blockyard.kernel.host.debian import tool_root

    output.say(explanation.why(spec, symbol, tool_root()))


@command(
    "series",
    Group.LOOK,
    "series thread.mbox.gz",
    "series ~/linux/outgoing --series-version 2",
    "series <(b4 am -o- 20260101.1234-1-a@example.org) --json",
    help={
        "path": ("PATH", "a folder, an mbox or one patch, as --series takes it"),
        "series_version": options.KERNEL["series_version"],
    },
)
def series(c: Context, path: str, series_version: str = "", json: bool = False) -> None:
    """List the patches of a series, and what is left out.

    Applies nothing.
    """
    from pathlib import Path

    from blockyard.kernel.host.progress import printable
    from blockyard.kernel.sources.reader import read
    from blockyard.kernel.spec import numbered

    patches = read(Path(path), numbered("--series-version", series_version))
    print(patches.as_json() if json else printable("\n".join(patches.table())))
