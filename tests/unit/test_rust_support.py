# SPDX-License-Identifier: GPL-2.0-or-later
"""When the configuration drops CONFIG_RUST, the kernel is built without Rust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blockyard.kernel import sources
from blockyard.kernel.artifact import Kernel
from blockyard.kernel.build import build, rust_support
from blockyard.kernel.build.configure import SymbolsDropped
from blockyard.kernel.build.spec import BuildSpec
from blockyard.kernel.config.explain import Explanation
from blockyard.kernel.config.kconfig import prove
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import plan
from blockyard.tests.unit import samples
from blockyard.tests.unit.test_omitted import NEW_ENOUGH, make_tree

WHY = "depends on RUST_IS_AVAILABLE [=n] (init/Kconfig:3)"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[BuildSpec]:
    """Builds started from a tree whose Kconfig always drops RUST."""
    tree = make_tree(tmp_path / "linux", "7.3")
    started: list[BuildSpec] = []

    def build_(job: BuildSpec) -> Kernel:
        started.append(job)
        requests = job.merged.requests
        values = {name: "n" if name == "RUST" else r.value for name, r in requests.items()}
        if dropped := prove(requests, values):
            raise SymbolsDropped("lost CONFIG_RUST", dropped, {"RUST": WHY}, tmp_path / "log")
        return samples.kernel(tmp_path / "kernel")

    monkeypatch.setattr(sources, "fetch", lambda *_: tree)
    monkeypatch.setattr(build, "build", build_)
    return started


def test_kernel_is_built_without_rust_and_records_the_reason(
    built: list[BuildSpec], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.kernel(KernelSpec("7.3"), samples.tools(tmp_path / "tools", NEW_ENOUGH))
    first, second = built
    assert "Rust" not in first.omitted
    assert second.omitted["Rust"] == f"the configuration drops CONFIG_RUST: {WHY}"
    assert WHY in second.omitted["rnull"]
    assert "null_blk" not in second.omitted
    assert "RUST" not in second.merged.requests
    assert f"kernel 7.3 is built without Rust: {WHY}" in capsys.readouterr().err


def test_rust_is_tried_again_after_a_day(built: list[BuildSpec], tmp_path: Path) -> None:
    tools = samples.tools(tmp_path / "tools", NEW_ENOUGH)
    plan.kernel(KernelSpec("7.3"), tools)
    tried = built[0]
    built.clear()
    plan.kernel(KernelSpec("7.3"), tools)
    assert ["Rust" in job.omitted for job in built] == [True]
    os.utime(rust_support._file(tried), (0, 0))
    built.clear()
    plan.kernel(KernelSpec("7.3"), tools)
    assert ["Rust" in job.omitted for job in built] == [False, True]


def test_rust_requested_by_a_user_fragment_is_an_error(
    built: list[BuildSpec], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.config"
    mine.write_text("CONFIG_RUST=y\n")
    with pytest.raises(SymbolsDropped):
        plan.kernel(
            KernelSpec("7.3", fragments=(mine,)), samples.tools(tmp_path / "tools", NEW_ENOUGH)
        )


def test_reason_is_the_dependency_chain_without_advice() -> None:
    explanation = Explanation(
        "RUST is n, wanted y (rust.config:4)",
        (
            "depends on RUST_IS_AVAILABLE [=n] (init/Kconfig:3)",
            "  RUST_IS_AVAILABLE: the tree's check of the tools says n",
            "    no libclang. See output and docs below for details:",
        ),
        ("`make rustavailable`",),
    )
    assert explanation.chain == (
        f"{WHY}; RUST_IS_AVAILABLE: the tree's check of the tools says n; no libclang."
    )
