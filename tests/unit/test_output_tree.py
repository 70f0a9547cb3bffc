# SPDX-License-Identifier: GPL-2.0-or-later
"""When an output tree is fit for module builds, and when it is rebuilt first."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from blockyard.kernel import artifact
from blockyard.kernel.build import build, toolchain
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config.kconfig import Fragment
from blockyard.kernel.host import store
from blockyard.kernel.sources.origin import Origin, Other
from blockyard.kernel.sources.tree import Tree
from blockyard.tests.unit import samples

CONFIG, EXPORTS = "CONFIG_BLOCK=y\n", "0x1\ta\tvmlinux\tEXPORT_SYMBOL\n"
BASE = Fragment("base.config", CONFIG)


@pytest.fixture
def job(tmp_path: Path) -> BuildSpec:
    tools = samples.tools(tmp_path / "tools")
    tree = Tree(tmp_path / "tree", Other("debian linux-source-7.3 7.3.4-1"))
    return BuildSpec("7.3", tree, (BASE,), toolchain.from_root(tools), tools)


@pytest.fixture
def rebuilt(monkeypatch: pytest.MonkeyPatch) -> list[Origin]:
    """Origins of the kernels that are rebuilt; nothing is compiled."""
    origins: list[Origin] = []
    monkeypatch.setattr(build, "configure", lambda job: origins.append(job.tree.origin))
    monkeypatch.setattr(BuildSpec, "compile", lambda job, *targets, doing: None)
    return origins


def output_tree(
    job: BuildSpec, system_map: str = "a", config: str = CONFIG, exports: str = EXPORTS
) -> None:
    job.out.mkdir(parents=True, exist_ok=True)
    (job.out / "Module.symvers").write_text(exports)
    (job.out / "System.map").write_text(system_map)
    (job.out / ".config").write_text(config)


def kernel(job: BuildSpec, system_map: str) -> None:
    path = store.directory("kernels") / job.key
    path.mkdir()
    (path / "System.map").write_text(system_map)
    (path / "config").write_text(CONFIG)
    exports = hashlib.sha256(EXPORTS.encode()).hexdigest()
    artifact.save_info(path, msgspec.structs.replace(samples.info(), exports_sha256=exports))


def test_complete_output_tree_is_used(job: BuildSpec, rebuilt: list[Origin]) -> None:
    output_tree(job)
    with build.ready_for_modules(job):
        pass
    assert rebuilt == []
    assert (job.out / "System.map").exists()


def test_removed_output_tree_is_rebuilt(job: BuildSpec, rebuilt: list[Origin]) -> None:
    with build.ready_for_modules(job):
        pass
    assert rebuilt == [job.tree.origin]


def test_output_tree_of_another_state_of_a_directory_is_rebuilt(
    job: BuildSpec, rebuilt: list[Origin]
) -> None:
    """All states of a directory share one output tree; its System.map tells whose it is."""
    old, new = (
        replace(job, tree=replace(job.tree, origin=Other(s), build_id="x")) for s in ("old", "new")
    )
    kernel(old, "a")
    kernel(new, "b")
    output_tree(new, "b")
    with build.ready_for_modules(new):
        pass
    assert rebuilt == []
    with build.ready_for_modules(old):
        pass
    assert rebuilt == [Other("old")]
    assert (old.out / "Module.symvers").exists(), "files that make can reuse were removed"


@pytest.mark.parametrize(
    "other", [{"system_map": "b"}, {"config": "CONFIG_BLOCK=y\nCONFIG_A=y\n"}, {"exports": "x"}]
)
def test_output_tree_that_differs_from_the_kernel_is_rebuilt(
    job: BuildSpec, rebuilt: list[Origin], other: dict[str, str]
) -> None:
    job = replace(job, tree=replace(job.tree, build_id="x"))
    kernel(job, "a")
    output_tree(job, **other)
    with build.ready_for_modules(job):
        pass
    assert rebuilt == [job.tree.origin]
