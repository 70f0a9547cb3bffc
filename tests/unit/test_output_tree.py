# SPDX-License-Identifier: GPL-2.0-or-later
"""When modules can be built in an output tree, and when it is made again first."""

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
def made(monkeypatch: pytest.MonkeyPatch) -> list[Origin]:
    """The names of the kernels that are made again; nothing is compiled."""
    names: list[Origin] = []
    monkeypatch.setattr(build, "configure", lambda job: names.append(job.tree.origin))
    monkeypatch.setattr(BuildSpec, "compile", lambda job, *targets, doing: None)
    return names


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


def test_a_whole_one_is_taken_as_it_is(job: BuildSpec, made: list[Origin]) -> None:
    output_tree(job)
    with build.ready_for_modules(job):
        pass
    assert made == []
    assert (job.out / "System.map").exists()


def test_one_that_the_cache_gave_up_is_made_again(job: BuildSpec, made: list[Origin]) -> None:
    with build.ready_for_modules(job):
        pass
    assert made == [job.tree.origin]


def test_a_directory_s_is_that_of_one_state(job: BuildSpec, made: list[Origin]) -> None:
    """All states of a directory share it: it is the kernel's while its symbols are."""
    old, new = (
        replace(job, tree=replace(job.tree, origin=Other(s), build_id="x")) for s in ("old", "new")
    )
    kernel(old, "a")
    kernel(new, "b")
    output_tree(new, "b")
    with build.ready_for_modules(new):
        pass
    assert made == []
    with build.ready_for_modules(old):
        pass
    assert made == [Other("old")]
    assert (old.out / "Module.symvers").exists(), "what make can use again was removed"


@pytest.mark.parametrize(
    "other", [{"system_map": "b"}, {"config": "CONFIG_BLOCK=y\nCONFIG_A=y\n"}, {"exports": "x"}]
)
def test_one_of_another_state_is_made_again(
    job: BuildSpec, made: list[Origin], other: dict[str, str]
) -> None:
    job = replace(job, tree=replace(job.tree, build_id="x"))
    kernel(job, "a")
    output_tree(job, **other)
    with build.ready_for_modules(job):
        pass
    assert made == [job.tree.origin]
