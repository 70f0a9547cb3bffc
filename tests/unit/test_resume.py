# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv test --resume`: which interrupted run it continues, and when it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import record, resume, run, selection
from blockyard.ci.run.journal import FILE, Header, Journal, Planned
from blockyard.ci.run.module_tests import folder as own_folder
from blockyard.ci.run.record import Run
from blockyard.ci.run.resume import LATEST
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import settings
from blockyard.kernel.spec import KernelSpec
from blockyard.tests.unit.samples import result, run_of
from blockyard.tests.unit.test_journal import HEADER

OPTIONS = {"kernel": "7.3", "driver": "null_blk"}


def make_run(name: str, options: dict[str, str] = OPTIONS, finished: Run | None = None) -> Path:
    """Create a run's folder with its journal and, for a finished run, its record."""
    folder = settings().results_dir / name
    folder.mkdir(parents=True)
    Journal.create(folder, msgspec.structs.replace(HEADER, requested=options)).close()
    if finished:
        record.write(finished, folder)
    return folder


class TestFind:
    def test_newest_run_with_the_same_options(self) -> None:
        make_run("20260101-000000")
        expected = make_run("20260102-000000")
        make_run("20260103-000000", {**OPTIONS, "driver": "nvme"})
        make_run("20260104-000000", finished=run_of(result("pass")))
        assert resume.find(LATEST, OPTIONS).directory == expected

    def test_recorded_run_that_was_interrupted(self) -> None:
        interrupted = msgspec.structs.replace(run_of(result("lost")), interrupted=True)
        expected = make_run("20260104-000000", finished=interrupted)
        assert resume.find(LATEST, OPTIONS).directory == expected

    @pytest.mark.parametrize("by_path", [False, True])
    def test_run_by_name_or_path(self, by_path: bool) -> None:
        expected = make_run("20260101-000000")
        make_run("20260102-000000")
        name = str(expected) if by_path else expected.name
        assert resume.find(name, OPTIONS).directory == expected

    def test_no_matching_run_is_a_usage_error(self) -> None:
        with pytest.raises(UsageError, match="no interrupted run with these options"):
            resume.find(LATEST, OPTIONS)
        make_run("20260102-000000", {**OPTIONS, "driver": "nvme"})
        with pytest.raises(UsageError, match="no interrupted run with these options") as caught:
            resume.find(LATEST, OPTIONS)
        assert "20260102-000000" in caught.value.hint

    def test_different_options_are_named(self) -> None:
        make_run("20260102-000000", {**OPTIONS, "driver": "nvme"})
        with pytest.raises(UsageError, match="had different options: --driver was nvme"):
            resume.find("20260102-000000", OPTIONS)

    def test_finished_or_missing_run_is_refused(self) -> None:
        make_run("whole", finished=run_of(result("pass")))
        for name in ("whole", "none", LATEST + "er"):
            with pytest.raises(UsageError, match="has no interrupted run"):
                resume.find(name, OPTIONS)

    def test_finished_run_of_schema_1_is_not_open(self) -> None:
        folder = make_run("20260102-000000")
        (folder / "run.json").write_text('{"schema": 1, "interrupted": false, "tests": []}')
        with pytest.raises(UsageError, match="no interrupted run with these options"):
            resume.find(LATEST, OPTIONS)
        (folder / "run.json").write_text('{"schema": 1, "tests"')
        assert resume.find(LATEST, OPTIONS).directory == folder

    def test_running_run_is_skipped(self) -> None:
        expected = make_run("20260101-000000")
        past = resume.find(expected.name, OPTIONS).past
        newer = make_run("20260102-000000")
        running = Journal.reopen(newer, past, "now")
        assert resume.find(LATEST, OPTIONS).directory == expected
        with pytest.raises(UsageError, match="20260102-000000 is still running"):
            resume.find(newer.name, OPTIONS)
        running.close()
        assert resume.find(LATEST, OPTIONS).directory == newer

    def test_broken_journal_is_skipped(self) -> None:
        expected = make_run("20260101-000000")
        (make_run("20260102-000000") / FILE).write_bytes(b"\x00\xff\n")
        assert resume.find(LATEST, OPTIONS).directory == expected


class TestCheck:
    def changed(self, **changes: object) -> Header:
        return msgspec.structs.replace(HEADER, **changes)

    def test_unchanged_run_is_accepted(self) -> None:
        folder = make_run("r")
        resume.check(resume.find(folder.name, OPTIONS), HEADER)

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"inputs": {"the kernel": "4567"}}, "the kernel"),
            ({"inputs": {**HEADER.inputs, "Blockyard": "1"}}, "Blockyard"),
            ({"tests": HEADER.tests[:-1]}, "the tests"),
        ],
    )
    def test_changed_input_is_named(self, changes: dict[str, object], what: str) -> None:
        earlier = resume.find(make_run("r").name, OPTIONS)
        with pytest.raises(Failure, match=f"cannot resume r: changed since then: {what}"):
            resume.check(earlier, self.changed(**changes))


class TestOptions:
    def test_options_are_those_typed(self) -> None:
        chosen = selection.select("null_blk", "serial", "smoke,block", "size", seed="7")
        options = resume.options(KernelSpec("7.3-debian"), chosen)
        assert options["kernel"] == "7.3-debian"
        assert options["driver"] == "null_blk"
        assert options["suite"] == "block,smoke"
        assert (options["k"], options["seed"], options["budget"]) == ("size", "7", "default")

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("https://me:{}@example.com/linux.git#main", "https://***@example.com/linux.git#main"),
            (
                "https://example.com/linux.tar.gz?private_token={}#sha256=" + "0" * 64,
                "https://example.com/linux.tar.gz?private_token=***#sha256=" + "0" * 64,
            ),
        ],
    )
    def test_token_is_not_stored(self, tmp_path: Path, url: str, shown: str) -> None:
        chosen = selection.select("null_blk", "serial", "smoke")
        first, same, other = (
            resume.options(KernelSpec(url.format(token)), chosen)
            for token in ("t0ken", "t0ken", "another")
        )
        header = msgspec.structs.replace(HEADER, requested=first)
        Journal.create(tmp_path, header).close()
        data = (tmp_path / FILE).read_text()
        assert shown in data
        assert "t0ken" not in data
        assert first == same != other

    @pytest.mark.parametrize(
        "name", ["test_it.py", "more/test_it.py", "more/helper/__init__.py", "data/image.bin"]
    )
    def test_changed_file_of_a_module_changes_the_run(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
        before = resume._content(str(tmp_path))
        path.write_text("two")
        assert resume._content(str(tmp_path)) != before

    def test_build_products_and_bytecode_are_ignored(self, tmp_path: Path) -> None:
        (tmp_path / "mine.c").write_text("one")
        before = resume._content(str(tmp_path))
        (tmp_path / "__pycache__").mkdir()
        for name in ("__pycache__/x.pyc", "mine.ko", ".mine.cmd"):
            (tmp_path / name).write_text("x")
        assert resume._content(str(tmp_path)) == before

    def test_link_in_a_module_is_not_followed(self, tmp_path: Path) -> None:
        before = resume._content(str(tmp_path))
        (tmp_path / "test_link.py").symlink_to("/dev/zero")
        assert resume._content(str(tmp_path)) != before
        os.mkfifo(tmp_path / "test_pipe.py")
        resume._content(str(tmp_path))

    def test_unreadable_content_never_matches(self, tmp_path: Path) -> None:
        (tmp_path / "huge").touch()
        os.truncate(tmp_path / "huge", 1 << 30)
        assert resume._content(str(tmp_path)) != resume._content(str(tmp_path))

    def test_series_version_changes_the_run(self) -> None:
        chosen = selection.select("null_blk", "serial", "smoke")
        first, second = (resume.options(KernelSpec(series_version=n), chosen) for n in (None, 2))
        assert first["series-version"] == ""
        assert resume._differences(first, second) == {"series-version": ""}

    def test_code_includes_every_suite(self) -> None:
        names = {path.name for path in resume._code()}
        assert {"run.py", "plugin.py", "known_failures.toml", "init.c", "null_blk.toml"} <= names
        assert {"requirements.lock", "pyproject.toml"} <= names
        assert not any(path.suffix == ".pyc" for path in resume._code())


class TestTidy:
    def leftovers(self, name: str) -> list[Path]:
        """Create a killed run's module folders, one of them in a resumed part."""
        folder = make_run(name)
        left = [folder / ".own-mine", folder / "resumed-1" / ".own-mine"]
        for path in left:
            (path / "cache" / "snapshots").mkdir(parents=True)
        (folder / "guests").mkdir()
        return left

    def test_leftovers_of_killed_runs_are_removed(self) -> None:
        left = [*self.leftovers("20260101-000000"), *self.leftovers("20260102-000000")]
        run._tidy(left[0].parent)
        assert not any(path.exists() for path in left)
        assert (left[0].parent / "guests").is_dir()

    def test_folder_in_use_is_kept(self) -> None:
        used, unused = self.leftovers("20260101-000000")
        with store.in_use(used):
            run._tidy(settings().results_dir / "20260102-000000")
        assert used.exists()
        assert not unused.exists()

    def test_folders_of_a_running_run_are_kept(self) -> None:
        left = self.leftovers("20260101-000000")
        past = resume.find("20260101-000000", OPTIONS).past
        running = Journal.reopen(left[0].parent, past, "now")
        run._tidy(settings().results_dir / "20260102-000000")
        assert all(path.exists() for path in left)
        running.close()

    def test_other_folders_are_kept(self) -> None:
        mine = settings().results_dir / "mine" / ".own-folder"
        mine.mkdir(parents=True)
        run._tidy(settings().results_dir / "20260102-000000")
        assert mine.exists()

    def test_links_are_kept(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        folder = make_run("20260101-000000")
        (folder / ".own-mine").symlink_to(tmp_path)
        run._tidy(folder)
        assert (tmp_path / "cache").exists()

    def test_module_folder_is_locked_during_the_run(self, tmp_path: Path) -> None:
        with own_folder.of_a_run(tmp_path, "mine") as folder:
            own_folder.remove_left(tmp_path)
            assert folder.exists()
        assert not folder.exists()


def test_header_lists_planned_tests() -> None:
    assert [type(test) for test in HEADER.tests] == [Planned] * 4
