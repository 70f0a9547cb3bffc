# SPDX-License-Identifier: GPL-2.0-or-later
"""A configuration that loses Rust leads to a kernel without it, and never to a failed build."""

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
    """The builds that are begun of a tree whose Kconfig never gives RUST."""
    tree = make_tree(tmp_path / "linux", "7.3")
    begun: list[BuildSpec] = []

    def begin(job: BuildSpec) -> Kernel:
        begun.append(job)
        asked = job.merged.requests
        got = {name: "n" if name == "RUST" else one.value for name, one in asked.items()}
        if dropped := prove(asked, got):
            raise SymbolsDropped("lost CONFIG_RUST", dropped, {"RUST": WHY}, tmp_path / "log")
        return samples.kernel(tmp_path / "kernel")

    monkeypatch.setattr(sources, "fetch", lambda *_: tree)
    monkeypatch.setattr(build, "build", begin)
    return begun


def test_the_kernel_is_built_without_rust_and_says_why(
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


def test_the_next_run_does_not_try_again_until_a_day_has_gone(
    built: list[BuildSpec], tmp_path: Path
) -> None:
    tools = samples.tools(tmp_path / "tools", NEW_ENOUGH)
    plan.kernel(KernelSpec("7.3"), tools)
    tried = built[0]
    built.clear()
    plan.kernel(KernelSpec("7.3"), tools)
    assert ["Rust" in one.omitted for one in built] == [True]
    os.utime(rust_support._file(tried), (0, 0))
    built.clear()
    plan.kernel(KernelSpec("7.3"), tools)
    assert ["Rust" in one.omitted for one in built] == [False, True]


def test_who_asks_for_rust_in_a_fragment_is_told_that_it_cannot_be(
    built: list[BuildSpec], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.config"
    mine.write_text("CONFIG_RUST=y\n")
    with pytest.raises(SymbolsDropped):
        plan.kernel(
            KernelSpec("7.3", fragments=(mine,)), samples.tools(tmp_path / "tools", NEW_ENOUGH)
        )


def test_the_reason_is_the_chain_without_advice() -> None:
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
