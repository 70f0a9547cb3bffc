# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about kernels: list, fetch, update, compare configurations."""

from __future__ import annotations

from invoke.context import Context

from blockyard.ci.cli import options
from blockyard.ci.cli.command import Group, Words, command


@command("kernel.list", Group.KERNELS, "kernel.list", "kernel.list --json")
def list_(c: Context, json: bool = False) -> None:
    """List kernels: what is cached, what can be built.

    Add names of your own in ~/.config/blockyard/kernels.toml, in the form of kernel/catalog.toml.
    """
    from blockyard.ci.commands import kernels

    kernels.show(as_json=json)


@command(
    "kernel.fetch",
    Group.KERNELS,
    "kernel.fetch 7.2,6.12",
    "kernel.fetch --kernel 7.2 --kernel 6.12",
    help={"kernel": options.SEVERAL_KERNELS},
    ends={125: "a download failed: no network, no space, no such package"},
    results="Prints the folders of the cache.",
)
def fetch(c: Context, kernel: Words) -> None:
    """Fetch sources or packages; build nothing."""
    from blockyard.ci import output
    from blockyard.ci.commands import cache
    from blockyard.kernel import commas

    for name, tree in cache.fetch(commas.kernels(kernel)).items():
        output.say(f"{name}  {tree.origin}  {tree.path}")


@command(
    "kernel.update",
    Group.KERNELS,
    "kernel.update --kernel 7.3",
    "kernel.update --yes",
    help={
        "kernel": (
            options.SEVERAL_KERNELS[0],
            "the kernels to look up; default: all that were fetched from Debian",
        ),
        "yes": ("", "record the newer versions; the next build uses them"),
    },
)
def update(c: Context, kernel: Words = (), yes: bool = False, json: bool = False) -> None:
    """Look for newer point releases; --yes records them."""
    from blockyard.ci.commands import cache
    from blockyard.kernel import commas

    cache.show_updates(commas.kernels(kernel), record=yes, as_json=json)


@command(
    "kernel.diff",
    Group.KERNELS,
    "kernel.diff 7.3 7.3:debug",
    "kernel.diff /boot/config-6.12 7.3 --json",
    help={
        "old": ("OLD", "a .config file, a kernel as --kernel takes it, or KERNEL:VARIANT"),
        "new": ("NEW", "the same; symbols that only NEW has are shown as added"),
    },
)
def diff(c: Context, old: str, new: str, json: bool = False) -> None:
    """Compare configurations: symbols, drivers, tools."""
    from blockyard.ci.commands import config_diff

    config_diff.show(old, new, as_json=json)
