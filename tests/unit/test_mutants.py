# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted bugs: the patches there are, what catches one, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.studies import mutants
from blockyard.ci.studies.mutants import (
    Catch,
    Mutant,
    NeverFailed,
    Report,
    Verdict,
    catches,
    outcome,
)
from blockyard.ci.studies.mutants_report import page
from blockyard.images.errors import QemuDied
from blockyard.kernel.host.errors import BlockyardError, Failure, UsageError
from blockyard.kernel.sources.series import Patch
from blockyard.modules import manifest
from blockyard.modules.rebuilt import source_folder
from blockyard.tests.unit import samples

PATCH = """\
SPDX-License-Identifier: GPL-2.0
Variant: faults
Suites: block, configfs

Something is
wrong.

--- a/drivers/block/x.c
+++ b/drivers/block/x.c
@@ -1 +1 @@
-right
+wrong
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "null_blk" / "bug.patch"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


class TestPatches:
    def test_there_are_enough(self) -> None:
        found = mutants.mutants()
        assert len(found) >= 24
        assert {mutant.driver for mutant in found} == {"null_blk", "rnull", "nvme"}

    @pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
    def test_each_changes_its_driver_and_says_how(self, mutant: Mutant) -> None:
        assert mutant.about.endswith(".")
        assert manifest.load(mutant.driver)
        text = mutant.patch.text.decode()
        files = [line.split()[1] for line in text.splitlines() if line.startswith("+++ ")]
        assert len(files) == 1
        place = {"null_blk": "block/null_blk", "rnull": "block/rnull", "nvme": "nvme/host"}
        assert files[0].startswith(f"b/drivers/{place[mutant.driver]}/")

    def test_one_is_read(self, tmp_path: Path) -> None:
        mutant = mutants.read(write(tmp_path, PATCH))
        assert (mutant.name, mutant.driver, mutant.variant) == (
            "null_blk/bug",
            "null_blk",
            "faults",
        )
        assert mutant.about == "Something is wrong."
        assert mutant.suites == ("block", "configfs")
        assert mutant.patch.text.startswith(b"--- a/drivers/block/x.c\n")

    def test_without_a_variant_it_is_the_plain_kernel_s(self, tmp_path: Path) -> None:
        assert mutants.read(write(tmp_path, PATCH.replace("Variant: faults\n", ""))).variant == (
            "plain"
        )

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ("SPDX-License-Identifier: GPL-2.0\n", "", "header"),
            ("Variant:", "Variante:", "header"),
            ("faults", "fault", "unknown variant"),
            ("Suites: block", "Suites: blck", "unknown suite"),
            ("Something is\nwrong.\n", "", "in words"),
            ("--- a", "--  a", "in words"),
        ],
    )
    def test_one_that_says_too_little(self, tmp_path: Path, old: str, new: str, told: str) -> None:
        with pytest.raises(UsageError, match=told):
            mutants.read(write(tmp_path, PATCH.replace(old, new)))

    def test_they_are_chosen_by_driver_and_name(self) -> None:
        assert {one.driver for one in mutants.mutants("rnull,nvme")} == {"rnull", "nvme"}
        assert all("zone" in one.name for one in mutants.mutants(pattern="zone"))
        assert len(mutants.mutants(pattern="rnull/power-off-*")) == 1
        with pytest.raises(UsageError, match="no mutant matches"):
            mutants.mutants("rnull", "zone")


class BrokenRun(mutants.MutationRun):
    """A kernel on which nothing can be tried, for a reason."""

    def __init__(self, error: BlockyardError) -> None:
        self.error = error

    def module(self, driver: str, patches: Sequence[Patch]) -> Path:
        raise self.error


class TestErrors:
    MUTANT = Mutant("nvme/x", "It is wrong.", "plain", Patch("nvme/x", b""))

    @pytest.mark.parametrize("error", [Failure("no hunk fits"), QemuDied("QEMU died")])
    def test_failed_work_leaves_the_mutant_untried(self, error: Failure) -> None:
        verdict, ran = mutants._examine(BrokenRun(error), self.MUTANT)
        assert (verdict.problem, ran) == (error.what, [])

    def test_usage_error_ends_the_command(self) -> None:
        """With the next mutant it would be the same."""
        with pytest.raises(UsageError, match="unknown suite"):
            mutants._examine(BrokenRun(UsageError("unknown suite 'x'")), self.MUTANT)


def test_what_catches_is_bad() -> None:
    finished = samples.run_of(
        samples.result("pass", "a/passes"),
        samples.result("xpass", "a/expected-to-fail"),
        samples.result("crash", "a/catches", reason="it\ndied"),
        samples.result("lost", "a/saw-nothing"),
    )
    assert catches(finished) == (Catch("a/catches", "crash", "it died"),)


def test_a_test_is_idle_when_none_of_its_parameters_catches() -> None:
    found = mutants.never_failed(
        [
            samples.result("pass", "a/catches(1)"),
            samples.result("fail", "a/catches(2)"),
            msgspec.structs.replace(samples.result("pass", "a/sleeps(1)"), features=("size",)),
            msgspec.structs.replace(
                samples.result("xfail", "a/sleeps(2)"), features=("size", "power")
            ),
            samples.result("skip", "a/never-ran"),
        ]
    )
    assert list(found) == [NeverFailed("a/sleeps", ("size", "power"))]


MISSED = Verdict(mutant="nvme/b", about="It is wrong.", variant="plain")
CAUGHT = Verdict(
    mutant="null_blk/a",
    about="It is wrong.",
    variant="plain",
    caught_by=tuple(Catch(f"block/{number}", "fail", "") for number in range(5)),
)
BROKEN = Verdict(mutant="nvme/c", about="It is wrong.", variant="plain", problem="no hunk fits")


def report(*verdicts: Verdict, idle: tuple[NeverFailed, ...] = ()) -> Report:
    return Report(
        kernel="7.3.4",
        date="2026-01-02",
        accelerator="tcg",
        verdicts=verdicts,
        every_test=bool(idle),
        never_failed=idle,
    )


class TestReport:
    def test_in_a_few_words(self) -> None:
        assert outcome(CAUGHT) == "caught by block/0 and 4 more"
        assert outcome(MISSED) == "missed"
        assert outcome(BROKEN) == "not tried: no hunk fits"

    def test_it_is_well_when_all_were_caught(self) -> None:
        assert report(CAUGHT).ok
        assert not report(CAUGHT, MISSED).ok
        assert not report(CAUGHT, BROKEN).ok

    def test_the_page(self) -> None:
        text = page(
            report(CAUGHT, MISSED, BROKEN, idle=(NeverFailed("block/idle", ("read", "size")),))
        )
        assert "**caught 1 of 3**" in text
        assert "| block/0, block/1, block/2 and 2 more |" in text
        assert "| **missed** |" in text
        assert "| **not tried** |" in text
        assert text.endswith("| block/idle | read, size |\n")


class TestSourceFolder:
    def test_it_is_where_the_module_stands(self, tmp_path: Path) -> None:
        kernel = samples.kernel(tmp_path / "kernel", modules={})
        folder = kernel.modules / "kernel" / "drivers" / "nvme" / "host"
        folder.mkdir(parents=True)
        for name in ("nvme.ko", "nvme-core.ko"):
            (folder / name).touch()
        assert source_folder(manifest.load("nvme"), kernel) == Path("drivers/nvme/host")

    def test_a_kernel_without_the_driver(self, tmp_path: Path) -> None:
        kernel = samples.kernel(tmp_path / "kernel", modules={})
        with pytest.raises(Failure, match="without CONFIG_BLK_DEV_NVME"):
            source_folder(manifest.load("nvme"), kernel)
