# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands about kernels: which there are, their sources, what differs between two."""

from __future__ import annotations

from invoke.context import Context

from blockyard.ci.cli import options
from blockyard.ci.cli.command import Group, Words, command


@command("kernel.list", Group.KERNELS, "kernel.list", "kernel.list --json")
def list_(c: Context, json: bool = False) -> None:
    """List kernels: cached, can be built, why not.

    Names of your own go to ~/.config/blockyard/kernels.toml, in the form of kernel/catalog.toml.
    """
    from blockyard.ci.commands import kernels

    kernels.show(as_json=json)


@command(
    "kernel.fetch",
    Group.KERNELS,
    "kernel.fetch 7.2,6.12",
    "kernel.fetch --kernel 7.2 --kernel 6.12",
    help={"kernel": options.SEVERAL_KERNELS},
    ends={125: "a source was not fetched: no network, no space, no such package"},
    results="The folders of the cache that are printed.",
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
            "those to ask about; default: all that were fetched from Debian",
        ),
        "yes": ("", "record the newer versions, so that the next build takes them"),
    },
)
def update(c: Context, kernel: Words = (), yes: bool = False, json: bool = False) -> None:
    """Look for newer point releases; --yes takes them."""
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
        "new": ("NEW", "the same; what only this one has is shown as added"),
    },
)
def diff(c: Context, old: str, new: str, json: bool = False) -> None:
    """Compare configurations: symbols, drivers, tools."""
    from blockyard.ci.commands import config_diff

    config_diff.show(old, new, as_json=json)
