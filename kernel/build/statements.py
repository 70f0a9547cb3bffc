# SPDX-License-Identifier: GPL-2.0-or-later
"""The provenance of kernels, modules and guest roots, for the statements beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blockyard.kernel import arch
from blockyard.kernel.build.spec import RECIPE, BuildSpec
from blockyard.kernel.config import kconfig
from blockyard.kernel.host.debian import RootSpec, ToolRoot
from blockyard.kernel.host.provenance import Input, Provenance, of_entry, of_text
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources.origin import DebianPackage, GitCommit, Patched
from blockyard.kernel.sources.tree import Tree


def of_kernel(job: BuildSpec) -> Provenance:
    """The provenance of a built kernel: tree, fragments, requests, compilers, tool root."""
    fragments = (of_text(f"fragment {fragment.name}", fragment.text) for fragment in job.fragments)
    requests = of_text("requested configuration", kconfig.render(job.merged))
    return Provenance(
        "kernel",
        {"kernel": job.name, "omitted": dict(job.omitted)},
        {
            "recipe": RECIPE,
            "key": job.key,
            "toolchain": dict(job.toolchain.versions),
            "arguments": job.make_argv(arch.target().image.target, "modules"),
            "sandbox": _sandbox(job.sandbox()),
        },
        (_tree(job.tree), *fragments, requests, *_tools(job.tools)),
    )


def of_prebuilt(name: str, key: str, recipe: int, files: Tree, tools: ToolRoot) -> Provenance:
    """The provenance of a distribution's kernel: the files of its packages."""
    made = {"recipe": recipe, "key": key}
    return Provenance("prebuilt-kernel", {"kernel": name}, made, (_tree(files), *_tools(tools)))


def of_module(
    driver: str, key: str, recipe: int, files: Mapping[str, str], kernel: Path, ran: Sandbox
) -> Provenance:
    """The provenance of a module outside the tree.

    files: name → sha256. kernel: its entry in the cache. ran: the sandbox of the build.
    """
    made = {"recipe": recipe, "key": key, "sandbox": _sandbox(ran)}
    sources = (Input(f"source {name}", {"sha256": sha[:64]}) for name, sha in files.items())
    inputs = (*sources, of_entry("kernel", kernel))
    return Provenance("module", {"driver": driver}, made, inputs)


def of_guest_root(
    spec: RootSpec, recipe: int, packages: Mapping[str, str], tools: ToolRoot
) -> Provenance:
    """The provenance of the guests' Debian system; packages: name → version, signed by Debian."""
    installed = "".join(f"{name} {version}\n" for name, version in packages.items())
    inputs = (
        of_text("packages of the guest root", installed),
        *(
            Input(name, {}, f"pkg:deb/debian/{name}@{version}")
            for name, version in packages.items()
        ),
        *_tools(tools),
    )
    requested = {"suite": spec.suite, "packages": list(spec.packages)}
    return Provenance("guest-root", requested, {"recipe": recipe, "key": spec.key}, inputs)


def _tools(tools: ToolRoot) -> tuple[Input, ...]:
    versions = (tools.path / "versions.txt").read_bytes()
    return of_text("packages of the tool root", versions), of_entry("tool root", tools.path)


def _tree(tree: Tree) -> Input:
    """A tree as an input, with its package, commit or digest as far as they are known."""
    entry = tree.path.parent if tree.path.name == "tree" else tree.path
    known = of_entry(f"source: {tree.origin}", entry)
    digest = dict(known.digest)
    uri = ""
    origin = tree.origin
    if isinstance(origin, DebianPackage):
        uri = f"pkg:deb/debian/{origin.package}@{origin.version}"
    base = origin.unpatched if isinstance(origin, Patched) else origin
    if isinstance(base, GitCommit):
        uri = f"git+{base.repository}"
        digest["gitCommit"] = base.commit
    return Input(
        known.name, digest, uri, {**known.annotations, "blockyard.identity": tree.identity}
    )


def _sandbox(sandbox: Sandbox) -> dict[str, Any]:
    """What a build could read and write; of its environment only the names of variables."""
    return {
        "root": str(sandbox.root.parent.name),
        "network": sandbox.network,
        "readOnly": sorted(sandbox.read_only),
        "writable": sorted(sandbox.writable),
        "devices": list(sandbox.devices),
        "environment": sorted(sandbox.environment),
    }
