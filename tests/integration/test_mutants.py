# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants in real guests: a bug is caught, a comment is not, and all patches apply."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from blockyard.ci.studies import mutants
from blockyard.ci.studies.mutants import Conditions, Mutant
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.sandbox import Sandbox
from blockyard.kernel.sources import series
from blockyard.kernel.sources.series import Patch
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest, plan, rebuilt
from blockyard.tests.integration.conftest import KERNEL

CAUGHT = "rnull/irqmode-2-taken"
HARMLESS = """\
--- a/drivers/block/rnull/rnull.rs
+++ b/drivers/block/rnull/rnull.rs
@@ -30,2 +30,3 @@
 struct NullBlkModule {
+    // This changes nothing.
     #[pin]
"""


def test_bug_is_caught_and_comment_is_not(ready: BootEnv) -> None:
    (bug,) = mutants.mutants(pattern=CAUGHT)
    comment = Mutant("rnull/comment", "Nothing.", "plain", Patch("comment", HARMLESS.encode()))
    broken = Mutant(
        "rnull/broken",
        "?",
        "plain",
        Patch("b", HARMLESS.replace("    // This", "    This").encode()),
    )
    report = mutants.examine(
        [bug, comment, broken], Conditions(KERNEL, "auto", 2, suite="configfs")
    )
    caught, missed, not_tried = report.verdicts
    assert all("(2)" in catch.test for catch in caught.caught_by), caught
    assert caught.caught_by
    assert not missed.caught_by
    assert not missed.problem
    assert "building rnull with b" in not_tried.problem
    assert (report.caught, report.ok) == (1, False)


def test_every_patch_applies(ready: BootEnv, tmp_path: Path) -> None:
    tree = plan.build_spec(KernelSpec(KERNEL), ready.tools).tree
    for number, mutant in enumerate(mutants.mutants()):
        folder = rebuilt.source_folder(manifest.load(mutant.driver), ready.kernel)
        copy = tmp_path / str(number)
        shutil.copytree(tree.path / folder, copy / "tree" / folder)
        series.apply(tree, [mutant.patch], copy, ready.tools)


def test_patch_for_another_kernel_is_a_failure(ready: BootEnv) -> None:
    tree = plan.build_spec(KernelSpec(KERNEL), ready.tools).tree
    patch = Patch("old", HARMLESS.replace("struct Null", "struct Nil").encode())

    def maker() -> AbstractContextManager[tuple[Sandbox, list[str]]]:
        raise AssertionError("nothing should be built")

    with pytest.raises(Failure, match=r"rnull\.rs: hunk 1 does not fit"):
        rebuilt.rebuilt(manifest.load("rnull"), ready.kernel, tree, [patch], ready.tools, maker)
