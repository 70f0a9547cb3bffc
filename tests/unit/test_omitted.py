# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel omits what its tree or tools cannot build, and records the reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.commands import explain
from blockyard.kernel import artifact
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.build import toolchain
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.sources.origin import Other
from blockyard.kernel.sources.tree import Tree
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan
from blockyard.tests.unit import samples

MINIMUM = """\
#!/bin/sh
case "$1" in
gcc)
\tif [ "$ARCH" = parisc64 ]; then
\t\techo 12.0.0
\telse
\t\techo 8.1.0
\tfi
\t;;
rustc)
\techo 1.85.0
\t;;
bindgen)
\techo 0.71.1
\t;;
*)
\techo "$1: unknown tool" >&2
esac
"""
KCONFIG = """\
config BLK_DEV_NULL_BLK
\ttristate "C"
menuconfig BLK_DEV_NVME
\ttristate "NVMe"
\thelp
\t  see config FROM_A_HELP_TEXT
config BLK_DEV_RUST_NULL
\ttristate "Rust"
# config COMMENTED_OUT
"""
NEW_ENOUGH = {"rustc": "1.85.0+dfsg3-1", "bindgen": "0.71.1-4"}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return make_tree(tmp_path / "linux", "7.3")


def make_tree(path: Path, version: str, kconfig: str = KCONFIG, *, rust: bool = True) -> Tree:
    """Create the files that are read from a tree before it is configured."""
    for folder in ("scripts", "drivers", "arch/x86", "arch/arm", *(["rust"] if rust else [])):
        (path / folder).mkdir(parents=True)
    major, minor = version.split(".")
    (path / "Makefile").write_text(f"VERSION = {major}\nPATCHLEVEL = {minor}\nSUBLEVEL = 4\n")
    (path / "Kconfig").write_text('source "drivers/Kconfig"\n')
    (path / "drivers/Kconfig").write_text(kconfig)
    (path / "arch/x86/Kconfig.cpu").write_text("config X86_THING\n\tbool\n")
    (path / "arch/arm/Kconfig").write_text("config ARM_THING\n\tbool\n")
    (path / "scripts/min-tool-version.sh").write_text(MINIMUM)
    return Tree(path, Other(f"test {path}"))


def tools(path: Path, versions: Mapping[str, str] = NEW_ENOUGH) -> ToolRoot:
    return samples.tools(path / "root", versions)


class TestTree:
    @pytest.mark.parametrize(
        ("symbol", "defined"),
        [
            ("BLK_DEV_NULL_BLK", True),
            ("BLK_DEV_NVME", True),
            ("X86_THING", True),
            ("ARM_THING", False),
            ("BLK_DEV", False),
            ("COMMENTED_OUT", False),
        ],
    )
    def test_symbols_of_other_architectures_are_not_defined(
        self, tree: Tree, symbol: str, defined: bool
    ) -> None:
        assert tree.defines(symbol) == defined

    def test_answer_is_cached_per_origin(self, tree: Tree) -> None:
        assert tree.defines("BLK_DEV_NVME")
        (tree.path / "drivers/Kconfig").write_text("config OTHER\n")
        assert tree.defines("BLK_DEV_NVME")
        assert dataclasses.replace(tree, origin=Other("another state")).defines("OTHER")


class TestToolchain:
    @pytest.mark.parametrize(
        ("tool", "version"),
        [("rustc", "1.85.0"), ("bindgen", "0.71.1"), ("gcc", "8.1.0"), ("pahole", "")],
    )
    def test_minimum_version_comes_from_the_tree(self, tree: Tree, tool: str, version: str) -> None:
        assert toolchain.minimum(tree, tool) == version

    def test_tree_without_the_script_has_no_minimum(self, tree: Tree) -> None:
        (tree.path / "scripts/min-tool-version.sh").unlink()
        assert toolchain.minimum(tree, "rustc") == ""

    @pytest.mark.parametrize(
        ("versions", "problem"),
        [
            (NEW_ENOUGH, ""),
            (
                {**NEW_ENOUGH, "rustc": "1.63.0-2"},
                "Linux 7.3.4 needs rustc 1.85.0, the pinned toolchain has 1.63.0-2",
            ),
            (
                {**NEW_ENOUGH, "bindgen": "0.60.1"},
                "Linux 7.3.4 needs bindgen 0.71.1, the pinned toolchain has 0.60.1",
            ),
        ],
    )
    def test_old_tools_cannot_build_rust(
        self, tree: Tree, tmp_path: Path, versions: Mapping[str, str], problem: str
    ) -> None:
        chain = toolchain.from_root(tools(tmp_path, versions))
        assert toolchain.rust_problem(tree, chain) == problem

    def test_rust_needs_tools_at_all(self, tree: Tree, tmp_path: Path) -> None:
        chain = toolchain.from_root(tools(tmp_path))
        without = {name: version for name, version in chain.versions.items() if name != "bindgen"}
        problem = toolchain.rust_problem(tree, dataclasses.replace(chain, versions=without))
        assert problem == "the pinned toolchain has no bindgen"

    def test_tree_without_rust_code(self, tmp_path: Path) -> None:
        tree = make_tree(tmp_path / "linux", "5.10", rust=False)
        problem = toolchain.rust_problem(tree, toolchain.from_root(tools(tmp_path)))
        assert problem == "Linux 5.10.4 has no Rust code"

    def test_tree_that_needs_an_exact_rustc(self, tmp_path: Path) -> None:
        tree = make_tree(tmp_path / "linux", "6.1")
        problem = toolchain.rust_problem(tree, toolchain.from_root(tools(tmp_path)))
        assert "one version of rustc only" in problem


class TestDrivers:
    def test_driver_without_its_symbol_is_unbuildable(self, tmp_path: Path) -> None:
        tree = make_tree(tmp_path / "linux", "7.3", "config BLK_DEV_NULL_BLK\n\ttristate\n")
        assert manifest.load("null_blk").unbuildable(tree, "") == ""
        reason = manifest.load("nvme").unbuildable(tree, "")
        assert reason == "Linux 7.3.4 has no CONFIG_BLK_DEV_NVME"

    def test_missing_rust_affects_only_rust_drivers(self, tree: Tree) -> None:
        assert manifest.load("rnull").unbuildable(tree, "too old") == "no Rust: too old"
        assert manifest.load("null_blk").unbuildable(tree, "too old") == ""

    def test_kernel_records_the_reason(self, tmp_path: Path) -> None:
        info = msgspec.structs.replace(samples.info(), omitted={"rnull": "no Rust: too old"})
        artifact.save_info(tmp_path, info)
        (tmp_path / "config").write_text("")
        kernel = artifact.load(tmp_path)
        assert kernel.info.omitted == {"rnull": "no Rust: too old"}
        reason = manifest.load("rnull").missing_from(kernel)
        assert reason == "kernel 7.3 has no rnull: no Rust: too old"

    def test_without_a_recorded_reason_the_symbol_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "config").write_text("# CONFIG_BLK_DEV_RUST_NULL is not set\n")
        reason = manifest.load("rnull").missing_from(Kernel(tmp_path, samples.info()))
        assert reason == "kernel 7.3 (7.3.4) is built without CONFIG_BLK_DEV_RUST_NULL"


class TestPlan:
    def job(self, tree: Tree, path: Path, versions: Mapping[str, str] = NEW_ENOUGH) -> BuildSpec:
        return plan.build_spec_in(tree, KernelSpec("7.3", variant="debug"), tools(path, versions))

    def test_complete_tools_omit_nothing(self, tree: Tree, tmp_path: Path) -> None:
        job = self.job(tree, tmp_path)
        assert not {"Rust", "rnull", "nvme", "null_blk"} & set(job.omitted)
        assert job.merged.requests["RUST"].value == "y"
        assert job.merged.requests["BLK_DEV_RUST_NULL"].value == "m"
        assert job.merged.requests["RUST_DEBUG_ASSERTIONS"].value == "y"

    def test_old_rustc_omits_rust_and_its_drivers(self, tree: Tree, tmp_path: Path) -> None:
        job = self.job(tree, tmp_path, {"rustc": "1.63.0"})
        assert (
            job.omitted["Rust"] == "Linux 7.3.4 needs rustc 1.85.0, the pinned toolchain has 1.63.0"
        )
        assert job.omitted["rnull"] == f"no Rust: {job.omitted['Rust']}"
        assert not [name for name in job.merged.requests if "RUST" in name]
        assert job.merged.requests["BLK_DEV_NULL_BLK"].value == "m"

    def test_driver_that_the_tree_lacks_is_omitted(self, tmp_path: Path) -> None:
        tree = make_tree(tmp_path / "linux", "7.3", KCONFIG.replace("BLK_DEV_NVME", "OTHER"))
        job = self.job(tree, tmp_path)
        assert job.omitted["nvme"] == "Linux 7.3.4 has no CONFIG_BLK_DEV_NVME"
        assert "BLK_DEV_NVME" not in job.merged.requests

    def test_user_fragment_comes_last_and_is_kept_unchanged(
        self, tmp_path: Path, tree: Tree
    ) -> None:
        mine = tmp_path / "mine.config"
        mine.write_text("CONFIG_PREEMPT_LAZY=y\n# CONFIG_NET is not set\n")
        old = make_tree(tmp_path / "old", "6.1")
        job = plan.build_spec_in(old, KernelSpec("6.1", fragments=(mine,)), tools(tmp_path))
        assert job.fragments[-1].name == str(mine)
        assert job.merged.requests["PREEMPT_LAZY"].value == "y"  # versions.toml drops ours
        assert job.merged.requests["NET"].value == "n"

    def test_explain_names_an_omitted_driver(self, tree: Tree, tmp_path: Path) -> None:
        job = self.job(tree, tmp_path, {"rustc": "1.63.0"})
        (reason,) = explain.omitted_drivers(job, "BLK_DEV_RUST_NULL")
        assert reason.startswith("the driver rnull is left out of kernel 7.3 debug: no Rust: ")
        assert explain.omitted_drivers(job, "BLK_DEV_NVME") == []
