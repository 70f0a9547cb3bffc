# SPDX-License-Identifier: GPL-2.0-or-later
"""Upstream blktests without a guest: reading a checkout, judging results, the result page."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import msgspec
import pytest

from blockyard.ci.run import selection
from blockyard.ci.run.circumstances import BlktestsCheckout
from blockyard.ci.selfbench import blktests as selfbench
from blockyard.ci.studies import blktests
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.spec import KernelSpec
from blockyard.modules import manifest
from blockyard.modules.driver import Driver
from blockyard.tests.blktests import archive, checkout, guest, results
from blockyard.tests.blktests import tree as upstream_tree
from blockyard.tests.harness.outcomes import SkipReason
from blockyard.tests.harness.upstream import Upstream, UpstreamTest
from blockyard.tests.unit import samples
from blockyard.tests.unit.samples import result, run_of

ON_A_DISK = UpstreamTest("zbd/001", on_a_disk=True)
ON_NULL_BLK = UpstreamTest("block/021", on_null_blk=True)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder that looks like a checkout."""
    folder = tmp_path / "tree"
    files = {
        "check": "#!/bin/bash\n",
        "common/rc": "",
        "src/Makefile": "all:\n",
        "tests/block/rc": ". common/rc\n",
        "tests/block/001": "DESCRIPTION=one\n\ntest() {\n\ttrue\n}\n",
        "tests/block/021": ". common/null_blk\ntest() {\n\ttrue\n}\n",
        "tests/block/021.out": "Running block/021\n",
        "tests/zbd/rc": ". common/null_blk\n",
        "tests/zbd/001": "test_device() {\n\ttrue\n}\n",
        "tests/meta/001": "test() {\n\ttrue\n}\n",
        "tests/Bad;name/001": "test() {\n\ttrue\n}\n",
        ".git/HEAD": "ref: refs/heads/master\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "tests/zbd/002").symlink_to("/etc/passwd")
    return folder


class TestCheckout:
    def test_tests_of_a_checkout(self, tree: Path) -> None:
        assert checkout.read(tree).tests == (
            UpstreamTest("block/001"),
            UpstreamTest("block/021", on_null_blk=True),
            UpstreamTest("meta/001"),
            UpstreamTest("zbd/001", on_a_disk=True, on_null_blk=True),
        )

    def test_folder_without_check_is_refused(self, tree: Path) -> None:
        (tree / "check").unlink()
        with pytest.raises(UsageError, match="is not a checkout of blktests") as raised:
            checkout.read(tree)
        assert checkout.URL in raised.value.hint

    def test_missing_folder_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="is not a checkout"):
            checkout.read(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("names", "chosen"),
        [
            ((), ["block/001", "block/021", "zbd/001"]),
            (("meta",), ["meta/001"]),
            (("zbd/", "block/021"), ["block/021", "zbd/001"]),
            (("tests/block/001",), ["block/001"]),
            (("-x", "block/001", "block"), ["block/021"]),
            (("block", "-xblock/021"), ["block/001"]),
            (("--exclude=block", "--exclude", "tests/meta/001"), ["zbd/001"]),
            (("-x", "zbd"), ["block/001", "block/021"]),
        ],
    )
    def test_names_select_tests(
        self, tree: Path, names: tuple[str, ...], chosen: list[str]
    ) -> None:
        assert [test.name for test in checkout.read(tree).select(names)] == chosen

    def test_unknown_name_is_a_usage_error(self, tree: Path) -> None:
        with pytest.raises(UsageError, match="unknown test or group of blktests 'block/022'"):
            checkout.read(tree).select(["block/022"])

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            (("-x",), "-x needs a test or a group"),
            (("-q", "block"), "unknown option '-q'"),
            (("-x", "block/022", "block"), "unknown test or group of blktests 'block/022'"),
            (("block", "-x", "block"), "no test of blktests is left"),
        ],
    )
    def test_invalid_options_are_usage_errors(
        self, tree: Path, names: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            checkout.read(tree).select(names)

    def test_hint_lists_groups_and_not_all_tests(self, tree: Path) -> None:
        with pytest.raises(UsageError) as caught:
            checkout.read(tree).select(["qqq"])
        assert caught.value.hint == "known: block, meta, zbd"

    @pytest.mark.parametrize(
        ("test", "drivers"),
        [
            (ON_A_DISK, {"null_blk", "rnull", "nvme"}),
            (ON_NULL_BLK, {"null_blk", "rnull"}),
            (UpstreamTest("loop/001"), {"null_blk"}),
            (UpstreamTest("nvme/003"), {"nvme"}),
        ],
    )
    def test_drivers_a_test_can_run_on(self, test: UpstreamTest, drivers: set[str]) -> None:
        names = ("null_blk", "rnull", "nvme")
        assert {name for name in names if test.fits(manifest.load(name))} == drivers


class TestArchive:
    def test_digest_covers_only_the_copied_files(self, tree: Path) -> None:
        before = archive.digest(checkout.read(tree))
        (tree / ".git/HEAD").write_text("elsewhere\n")
        assert archive.digest(checkout.read(tree)) == before
        (tree / "tests/block/021.out").write_text("another\n")
        assert archive.digest(checkout.read(tree)) != before

    def test_links_to_outside_are_not_followed(self, tree: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.mkdir(mode=0o700)
        (victim / "mine.c").touch()
        (victim / "mine").write_text("a program\n")
        (tree / "src/link").symlink_to(victim)
        (tree / "src/file.c").symlink_to(victim / "mine.c")
        os.mkfifo(tree / "src/pipe.c")
        os.mkfifo(tree / "tests/block/002")
        (tree / "src").chmod(0o555)
        read = checkout.read(tree)
        assert "block/002" not in [test.name for test in read.tests]
        archive.digest(read)
        copy = tmp_path / "copy"
        copy.mkdir()
        upstream_tree.copy(tree, archive.PACKED, copy)
        assert victim.stat().st_mode & 0o777 == 0o700
        assert (copy / "src/link").readlink() == victim
        assert (copy / "src").stat().st_mode & 0o777 == 0o755
        assert not (copy / "src/pipe.c").exists()
        names = {str(path.relative_to(copy)) for path in copy.rglob("*")}
        assert names >= {"check", "common/rc", "tests/zbd/002", "src/link", "src/file.c"}
        assert not any(name.startswith(".git") for name in names)
        assert (victim / "mine").exists()

    @pytest.mark.parametrize("name", ["src", "tests", "common", "check"])
    def test_checkout_of_links_is_refused(self, tree: Path, tmp_path: Path, name: str) -> None:
        (tree / name).rename(tmp_path / "elsewhere")
        (tree / name).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="is not a checkout of blktests"):
            checkout.read(tree)

    def test_checkout_without_bounds_is_refused(self, tree: Path) -> None:
        with open(tree / "src/large", "wb") as large:
            large.truncate(1 << 40)
        with pytest.raises(UsageError, match="has more than 256 MiB of files, up to src/large"):
            archive.digest(checkout.read(tree))
        os.truncate(tree / "src/large", upstream_tree.FILE_BYTES + 1)
        with pytest.raises(UsageError, match="src/large is larger than 16 MiB"):
            archive.digest(checkout.read(tree))
        (tree / "src/large").unlink()
        deep = tree / "src"
        for _ in range(upstream_tree.LIMITS.depth + 1):
            deep /= "d"
        deep.mkdir(parents=True)
        with pytest.raises(UsageError, match="more than 20 deep"):
            archive.digest(checkout.read(tree))

    def test_sources_without_a_program_are_not_built(self, tmp_path: Path) -> None:
        for name in ("a.c", "a", "b.c", "c.cpp", "sg/d.c", "sg/d", "e.sh"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        assert archive.not_built(tmp_path) == ["b", "c"]

    def test_digest_covers_the_target_of_a_link(self, tree: Path) -> None:
        before = archive.digest(checkout.read(tree))
        (tree / "tests/zbd/002").unlink()
        (tree / "tests/zbd/002").symlink_to("/etc/shadow")
        assert archive.digest(checkout.read(tree)) != before


class TestSelected:
    def test_selection_of_two_drivers(self, tree: Path) -> None:
        wanted = blktests.Options(str(tree), ("block", "zbd"), "null_blk,rnull")
        _, selection = blktests.selected(KernelSpec("7.3"), wanted)
        assert blktests.test_ids(selection) == [
            "blktests/block/001[null_blk-serial]",
            "blktests/block/021[null_blk-serial]",
            "blktests/zbd/001[null_blk-serial]",
            "blktests/block/021[rnull-serial]",
            "blktests/zbd/001[rnull-serial]",
        ]
        assert selection.scope.upstream is not None
        assert selection.checkout == str(tree)

    def test_selection_without_tests_is_a_usage_error(self, tree: Path) -> None:
        wanted = blktests.Options(str(tree), ("block/001",), "nvme")
        _, selection = blktests.selected(KernelSpec("7.3"), wanted)
        with pytest.raises(UsageError, match="no test matches"):
            blktests.test_ids(selection)

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (blktests.Options(""), "--tree is missing"),
            (blktests.Options("/", seconds=0), "invalid --seconds 0: expected 1 to 3600"),
        ],
    )
    def test_invalid_selection_is_a_usage_error(
        self, wanted: blktests.Options, message: str
    ) -> None:
        with pytest.raises(UsageError, match=message):
            blktests.selected(KernelSpec("7.3"), wanted)


def tar(**files: str) -> bytes:
    """A tar of results; `__` in a name means a slash, `_dot_` a dot."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo("./" + name.replace("__", "/").replace("_dot_", "."))
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


PASSED = "status\tpass\nexit_status\t0\nruntime\t1.2s\n"
OUTPUT_DIFFERS = "status\tfail\nreason\toutput\nexit_status\t0\n"
NOT_RUN = """\
block/021 (switch schedulers)                                 [not run]
    runtime  0.1s  ...  0.2s
    driver null_blk is not available
    kernel option X has not been enabled
"""


def verdict(
    archive: bytes,
    test: UpstreamTest = ON_NULL_BLK,
    disk: str = "",
    attributes: tuple[str, ...] = (),
) -> tuple[str, str]:
    read = results.read(test.name, archive)
    judged = results.judge(read, test, disk, "rnull", attributes)
    return judged.outcome, judged.reason


class TestVerdict:
    def test_pass(self) -> None:
        archive = tar(nodev__block__021=PASSED, exit_status="nodev\t0\n")
        assert verdict(archive) == ("pass", "")

    def test_failure_that_check_ignored(self) -> None:
        archive = tar(nodev__block__021=PASSED, exit_status="nodev\t3\n")
        assert verdict(archive) == ("fail", "exit status 3, ignored by check")

    def test_unexpected_output_is_a_failure(self) -> None:
        archive = tar(
            nodev__block__021=OUTPUT_DIFFERS,
            nodev__block__021_dot_out_dot_bad="Running\nbad\n",
            expected="Running\nTest complete\n",
            exit_status="nodev\t1\n",
        )
        outcome, reason = verdict(archive)
        assert outcome == "fail"
        assert reason.startswith("not the expected output, exit status 1\n--- expected\n")
        assert reason.endswith(" Running\n-Test complete\n+bad")

    def test_kernel_log_is_kept(self) -> None:
        archive = tar(
            nodev__block__021="status\tfail\nreason\tdmesg\n",
            nodev__block__021_dot_dmesg="WARNING: here\n",
        )
        judged = results.judge(results.read("block/021", archive), ON_NULL_BLK, "", "null_blk")
        assert (judged.outcome, judged.kernel_log) == ("fail", "WARNING: here\n")

    def test_skip_reasons_are_the_printed_ones(self) -> None:
        printed = {"check.log": NOT_RUN}
        archive = tar(nodev__block__021="status\tnot run\n", **printed)
        reason = "driver null_blk is not available; kernel option X has not been enabled"
        assert verdict(archive) == ("skip", reason)

    def test_skip_reason_does_not_name_the_disk(self) -> None:
        printed = {"check.log": "zbd/*** => by1   [not run]\n    /dev/by1 is not a zoned device\n"}
        assert verdict(tar(**printed), ON_A_DISK, disk="by1") == (
            "skip",
            "the disk is not a zoned device",
        )

    def test_skipped_group(self) -> None:
        printed = {"check.log": "block/***      [not run]\n    not running as root\n"}
        assert verdict(tar(**printed)) == ("skip", "not running as root")

    def test_no_result_is_a_failure(self) -> None:
        printed = {"check.log": "check: no group or test named block/021\n"}
        outcome, reason = verdict(tar(**printed))
        assert outcome == "fail"
        assert "no group or test named" in reason

    def test_failure_in_one_of_two_conditions(self) -> None:
        archive = tar(
            nodev_a__block__021=PASSED,
            nodev_b__block__021="status\tfail\nreason\texit\nexit_status\t0\n",
            exit_status="nodev_a\t0\nnodev_b\t4\n",
        )
        assert verdict(archive) == ("fail", "nodev_b: exit status 4")

    def test_run_on_a_disk_made_by_the_test_is_a_skip(self) -> None:
        archive = tar(nullb1__zbd__001=PASSED)
        outcome, reason = verdict(archive, ON_A_DISK, disk="nvme0n1")
        assert (outcome, reason) == ("skip", "zbd/001 runs on disks of its own, not on nvme0n1")
        assert verdict(tar(nvme0n1__zbd__001=PASSED), ON_A_DISK, disk="nvme0n1")[0] == "pass"

    def test_missing_attribute_is_a_skip(self) -> None:
        archive = tar(nodev__block__021=OUTPUT_DIFFERS, missing="zoned\nzoned\n")
        assert verdict(archive, attributes=("size",)) == ("skip", "rnull has no attribute zoned")

    def test_write_to_a_missing_attribute_is_a_skip(self) -> None:
        path = "/sys/kernel/config/rnull/nullb1"
        bad = {"nodev/block/021.out.bad": f"tests/block/021: line 7: {path}/mbps: No such file\n"}
        archive = tar(nodev__block__021=OUTPUT_DIFFERS, **bad)
        assert verdict(archive, attributes=("size",)) == ("skip", "rnull has no attribute mbps")
        assert verdict(archive, attributes=("size", "mbps"))[0] == "fail"

    def test_refused_value_is_a_skip(self) -> None:
        path = "/sys/kernel/config/rnull/nullb1"
        bad = {"nodev/block/021.out.bad": f"Writing 2 into {path}/irqmode failed\n"}
        archive = tar(nodev__block__021=OUTPUT_DIFFERS, **bad)
        assert verdict(archive, attributes=("irqmode",)) == ("skip", "rnull refuses irqmode=2")
        assert verdict(archive)[0] == "fail"

    def test_output_without_results_is_an_error(self) -> None:
        with pytest.raises(Failure, match="cannot read the results"):
            results.read("block/021", b"bash: tar: not found\n" * 100)


class TestRequirements:
    def test_requirements_are_listed_by_test(self) -> None:
        assert all(re.fullmatch(r"[a-z]+/\d{3}", name) for name in guest.needs())

    @pytest.mark.parametrize(
        ("test", "config", "cpus", "why"),
        [
            ("block/021", "", 1, ""),
            ("blktrace/001", "", 2, "kernel 7.3.4 is built without CONFIG_BLK_DEV_IO_TRACE"),
            ("blktrace/001", "CONFIG_BLK_DEV_IO_TRACE=y\n", 2, ""),
            ("block/038", "", 2, "the guest has 2 CPUs, the test needs 4"),
            ("block/038", "", 4, ""),
        ],
    )
    def test_unmet_requirement_is_named(
        self, tmp_path: Path, test: str, config: str, cpus: int, why: str
    ) -> None:
        driver = self._driver(tmp_path, config)
        unmet = guest.unmet(UpstreamTest(test), driver, cpus)
        assert (unmet.text if unmet else "") == why

    @pytest.mark.parametrize(
        ("release", "attributes", "why"),
        [
            ("7.3.4", ["size", "memory_backed"], ""),
            ("7.3.4", ["size"], "rnull has no attribute memory_backed"),
            ("6.12.1", [], "rnull has no disks that keep their data in this kernel"),
        ],
    )
    def test_disk_that_keeps_its_data(
        self, tmp_path: Path, release: str, attributes: list[str], why: str
    ) -> None:
        driver = self._driver(tmp_path, release=release, attributes=attributes)
        unmet = guest.unmet(UpstreamTest("block/042"), driver, 2)
        assert (unmet.text if unmet else "") == why

    @staticmethod
    def _driver(
        tmp_path: Path, config: str = "", release: str = "7.3.4", attributes: Sequence[str] = ()
    ) -> Driver:
        """rnull in a guest whose configfs has these attributes, without module parameters."""
        kernel = samples.kernel(tmp_path / "kernel", config, release=release)
        console = Mock()
        console.check.return_value = "\n".join(f"attribute:{name}" for name in attributes)
        console.run.return_value.output = ""
        return Driver(manifest.load("rnull").on(kernel), kernel, console)


def test_page_shows_the_worse_of_two_consoles() -> None:
    finished = run_of(
        result("fail", "blktests/block/001", reason="not the expected"),
        result("pass", "blktests/block/001", console="ssh"),
    )
    assert "| block/001 | **fail** (1) |" in blktests.page(finished)


def test_page_has_a_table_of_tests_and_drivers() -> None:
    finished = msgspec.structs.replace(
        run_of(
            result("pass", "blktests/block/021"),
            result("skip", "blktests/block/021", "rnull", reason="rnull has no attribute zoned"),
            msgspec.structs.replace(
                result("skip", "blktests/loop/001", reason="no driver loop; no losetup"),
                skip=SkipReason(lacking="test", text="no driver loop", more=1),
            ),
            result("fail", "blktests/zbd/001", reason="not the expected\noutput"),
        ),
        upstream=BlktestsCheckout("/home/me/blktests", "0123"),
    )
    page = blktests.page(finished)
    assert "| block/021 | pass | skip (1) |" in page
    assert "1. rnull has no attribute zoned" in page
    assert "| zbd/001 | **fail** (2) |  |" in page
    assert "2. not the expected" in page
    assert "| null_blk | no driver loop and 1 more | loop/001 |" in page
    assert "checkout 0123" in page
    assert "/home/me" not in page


def test_pairs_name_existing_tests() -> None:
    ours = {
        f"{path.parent.name}/{name}"
        for path in selection.SUITES.glob("*/test_*.py")
        for name in re.findall(r"^def test_(\w+)", path.read_text(), re.MULTILINE)
    }
    table = selfbench.pairs()
    assert {test for pair in table for test in pair.ours} | {selfbench.FIRST} <= ours
    assert len({pair.upstream for pair in table}) == len(table)
    assert all(selfbench.FIRST not in pair.ours for pair in table)


def test_plan_keeps_the_upstream_tests() -> None:
    upstream = Upstream(tests=(ON_NULL_BLK, ON_A_DISK), digest="0123")
    assert msgspec.json.decode(msgspec.json.encode(upstream), type=Upstream) == upstream
