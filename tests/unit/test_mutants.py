# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants (planted bugs): their patches, which tests catch them, and the report."""

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
    def test_every_driver_has_mutants(self) -> None:
        patches = mutants.mutants()
        assert len(patches) >= 24
        assert {mutant.driver for mutant in patches} == {"null_blk", "rnull", "nvme"}

    @pytest.mark.parametrize("mutant", mutants.mutants(), ids=lambda mutant: mutant.name)
    def test_mutant_changes_one_file_of_its_driver(self, mutant: Mutant) -> None:
        assert mutant.about.endswith(".")
        assert manifest.load(mutant.driver)
        text = mutant.patch.text.decode()
        files = [line.split()[1] for line in text.splitlines() if line.startswith("+++ ")]
        assert len(files) == 1
        folders = {"null_blk": "block/null_blk", "rnull": "block/rnull", "nvme": "nvme/host"}
        assert files[0].startswith(f"b/drivers/{folders[mutant.driver]}/")

    def test_patch_header_is_read(self, tmp_path: Path) -> None:
        mutant = mutants.read(write(tmp_path, PATCH))
        assert (mutant.name, mutant.driver, mutant.variant) == (
            "null_blk/bug",
            "null_blk",
            "faults",
        )
        assert mutant.about == "Something is wrong."
        assert mutant.suites == ("block", "configfs")
        assert mutant.patch.text.startswith(b"--- a/drivers/block/x.c\n")

    def test_default_variant_is_plain(self, tmp_path: Path) -> None:
        assert mutants.read(write(tmp_path, PATCH.replace("Variant: faults\n", ""))).variant == (
            "plain"
        )

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("SPDX-License-Identifier: GPL-2.0\n", "", "header"),
            ("Variant:", "Variante:", "header"),
            ("faults", "fault", "unknown variant"),
            ("Suites: block", "Suites: blck", "unknown suite"),
            ("Something is\nwrong.\n", "", "description"),
            ("--- a", "--  a", "description"),
        ],
    )
    def test_incomplete_header_is_refused(
        self, tmp_path: Path, old: str, new: str, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            mutants.read(write(tmp_path, PATCH.replace(old, new)))

    def test_selection_by_driver_and_name(self) -> None:
        assert {mutant.driver for mutant in mutants.mutants("rnull,nvme")} == {"rnull", "nvme"}
        assert all("zone" in mutant.name for mutant in mutants.mutants(pattern="zone"))
        assert len(mutants.mutants(pattern="rnull/power-off-*")) == 1
        with pytest.raises(UsageError, match="no mutant matches"):
            mutants.mutants("rnull", "zone")


class BrokenRun(mutants.MutationRun):
    """A run whose module build raises `error`."""

    def __init__(self, error: BlockyardError) -> None:
        self.error = error

    def module(self, driver: str, patches: Sequence[Patch]) -> Path:
        raise self.error


class TestErrors:
    MUTANT = Mutant("nvme/x", "It is wrong.", "plain", Patch("nvme/x", b""))

    @pytest.mark.parametrize("error", [Failure("no hunk fits"), QemuDied("QEMU died")])
    def test_failed_build_leaves_the_mutant_untried(self, error: Failure) -> None:
        verdict, ran = mutants._examine(BrokenRun(error), self.MUTANT)
        assert (verdict.problem, ran) == (error.what, [])

    def test_usage_error_ends_the_command(self) -> None:
        """The next mutant would fail in the same way."""
        with pytest.raises(UsageError, match="unknown suite"):
            mutants._examine(BrokenRun(UsageError("unknown suite 'x'")), self.MUTANT)


def test_crash_of_a_test_catches_the_mutant() -> None:
    finished = samples.run_of(
        samples.result("pass", "a/passes"),
        samples.result("xpass", "a/expected-to-fail"),
        samples.result("crash", "a/catches", reason="it\ndied"),
        samples.result("lost", "a/saw-nothing"),
    )
    assert catches(finished) == (Catch("a/catches", "crash", "it died"),)


def test_test_never_failed_when_none_of_its_parameters_catches() -> None:
    tests = mutants.never_failed(
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
    assert list(tests) == [NeverFailed("a/sleeps", ("size", "power"))]


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
    def test_outcome_is_one_phrase(self) -> None:
        assert outcome(CAUGHT) == "caught by block/0 and 4 more"
        assert outcome(MISSED) == "missed"
        assert outcome(BROKEN) == "not tested: no hunk fits"

    def test_report_is_ok_when_all_mutants_are_caught(self) -> None:
        assert report(CAUGHT).ok
        assert not report(CAUGHT, MISSED).ok
        assert not report(CAUGHT, BROKEN).ok

    def test_page_lists_every_mutant(self) -> None:
        text = page(
            report(CAUGHT, MISSED, BROKEN, idle=(NeverFailed("block/idle", ("read", "size")),))
        )
        assert "**caught 1 of 3**" in text
        assert "| block/0, block/1, block/2 and 2 more |" in text
        assert "| **missed** |" in text
        assert "| **not tested** |" in text
        assert text.endswith("| block/idle | read, size |\n")


class TestSourceFolder:
    def test_folder_is_that_of_the_module(self, tmp_path: Path) -> None:
        kernel = samples.kernel(tmp_path / "kernel", modules={})
        folder = kernel.modules / "kernel" / "drivers" / "nvme" / "host"
        folder.mkdir(parents=True)
        for name in ("nvme.ko", "nvme-core.ko"):
            (folder / name).touch()
        assert source_folder(manifest.load("nvme"), kernel) == Path("drivers/nvme/host")

    def test_kernel_without_the_driver_is_a_failure(self, tmp_path: Path) -> None:
        kernel = samples.kernel(tmp_path / "kernel", modules={})
        with pytest.raises(Failure, match="without CONFIG_BLK_DEV_NVME"):
            source_folder(manifest.load("nvme"), kernel)
