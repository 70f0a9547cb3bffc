# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interrupted run `./inv test --resume` goes on with, and when it refuses."""

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


def a_run(name: str, options: dict[str, str] = OPTIONS, finished: Run | None = None) -> Path:
    """A run's folder with its journal and, when it came to its end, its record."""
    folder = settings().results_dir / name
    folder.mkdir(parents=True)
    Journal.begun(folder, msgspec.structs.replace(HEADER, asked=options)).close()
    if finished:
        record.write(finished, folder)
    return folder


class TestFind:
    def test_the_newest_with_the_same_options(self) -> None:
        a_run("20260101-000000")
        wanted = a_run("20260102-000000")
        a_run("20260103-000000", {**OPTIONS, "driver": "nvme"})
        a_run("20260104-000000", finished=run_of(result("pass")))
        assert resume.find(LATEST, OPTIONS).directory == wanted

    def test_one_that_was_interrupted_and_recorded(self) -> None:
        interrupted = msgspec.structs.replace(run_of(result("lost")), interrupted=True)
        wanted = a_run("20260104-000000", finished=interrupted)
        assert resume.find(LATEST, OPTIONS).directory == wanted

    @pytest.mark.parametrize("by_path", [False, True])
    def test_by_name(self, by_path: bool) -> None:
        wanted = a_run("20260101-000000")
        a_run("20260102-000000")
        name = str(wanted) if by_path else wanted.name
        assert resume.find(name, OPTIONS).directory == wanted

    def test_none(self) -> None:
        with pytest.raises(UsageError, match="no run with these options was interrupted"):
            resume.find(LATEST, OPTIONS)
        a_run("20260102-000000", {**OPTIONS, "driver": "nvme"})
        with pytest.raises(UsageError, match="no run with these options") as caught:
            resume.find(LATEST, OPTIONS)
        assert "20260102-000000" in caught.value.hint

    def test_another_run_says_what_was_otherwise(self) -> None:
        a_run("20260102-000000", {**OPTIONS, "driver": "nvme"})
        with pytest.raises(UsageError, match="another run: --driver was nvme"):
            resume.find("20260102-000000", OPTIONS)

    def test_a_whole_run_and_no_run(self) -> None:
        a_run("whole", finished=run_of(result("pass")))
        for name in ("whole", "none", LATEST + "er"):
            with pytest.raises(UsageError, match="has no run that was interrupted"):
                resume.find(name, OPTIONS)

    def test_one_that_goes_on_now_is_passed_over(self) -> None:
        wanted = a_run("20260101-000000")
        past = resume.find(wanted.name, OPTIONS).past
        newer = a_run("20260102-000000")
        goes_on = Journal.reopened(newer, past, "now")
        assert resume.find(LATEST, OPTIONS).directory == wanted
        with pytest.raises(UsageError, match="20260102-000000 is of a run that goes on now"):
            resume.find(newer.name, OPTIONS)
        goes_on.close()
        assert resume.find(LATEST, OPTIONS).directory == newer

    def test_a_broken_journal_is_passed_over(self) -> None:
        wanted = a_run("20260101-000000")
        (a_run("20260102-000000") / FILE).write_bytes(b"\x00\xff\n")
        assert resume.find(LATEST, OPTIONS).directory == wanted


class TestCheck:
    def changed(self, **changes: object) -> Header:
        return msgspec.structs.replace(HEADER, **changes)

    def test_the_same(self) -> None:
        folder = a_run("r")
        resume.check(resume.find(folder.name, OPTIONS), HEADER)

    @pytest.mark.parametrize(
        ("changes", "what"),
        [
            ({"inputs": {"the kernel": "4567"}}, "the kernel"),
            ({"inputs": {**HEADER.inputs, "Blockyard": "1"}}, "Blockyard"),
            ({"tests": HEADER.tests[:-1]}, "the tests"),
        ],
    )
    def test_what_changed_is_named(self, changes: dict[str, object], what: str) -> None:
        earlier = resume.find(a_run("r").name, OPTIONS)
        with pytest.raises(Failure, match=f"cannot go on with r: {what} changed since"):
            resume.check(earlier, self.changed(**changes))


class TestOptions:
    def test_they_say_what_was_typed(self) -> None:
        wanted = selection.select("null_blk", "serial", "smoke,block", "size", seed="7")
        options = resume.asked(KernelSpec("7.3-debian"), wanted)
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
    def test_a_token_is_not_kept(self, tmp_path: Path, url: str, shown: str) -> None:
        wanted = selection.select("null_blk", "serial", "smoke")
        one, same, other = (
            resume.asked(KernelSpec(url.format(token)), wanted)
            for token in ("t0ken", "t0ken", "another")
        )
        header = msgspec.structs.replace(HEADER, asked=one)
        Journal.begun(tmp_path, header).close()
        data = (tmp_path / FILE).read_text()
        assert shown in data
        assert "t0ken" not in data
        assert one == same != other

    @pytest.mark.parametrize(
        "name", ["test_it.py", "more/test_it.py", "more/helper/__init__.py", "data/image.bin"]
    )
    def test_another_file_of_a_module_is_another_run(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one")
        before = resume._content(str(tmp_path))
        path.write_text("two")
        assert resume._content(str(tmp_path)) != before

    def test_what_a_build_or_python_makes_is_the_same_run(self, tmp_path: Path) -> None:
        (tmp_path / "mine.c").write_text("one")
        before = resume._content(str(tmp_path))
        (tmp_path / "__pycache__").mkdir()
        for name in ("__pycache__/x.pyc", "mine.ko", ".mine.cmd"):
            (tmp_path / name).write_text("x")
        assert resume._content(str(tmp_path)) == before

    def test_a_link_in_a_module_is_not_followed(self, tmp_path: Path) -> None:
        before = resume._content(str(tmp_path))
        (tmp_path / "test_link.py").symlink_to("/dev/zero")
        assert resume._content(str(tmp_path)) != before
        os.mkfifo(tmp_path / "test_pipe.py")
        resume._content(str(tmp_path))

    def test_what_cannot_be_read_is_never_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "huge").touch()
        os.truncate(tmp_path / "huge", 1 << 30)
        assert resume._content(str(tmp_path)) != resume._content(str(tmp_path))

    def test_another_version_of_a_series_is_another_run(self) -> None:
        wanted = selection.select("null_blk", "serial", "smoke")
        one, other = (resume.asked(KernelSpec(series_version=n), wanted) for n in (None, 2))
        assert one["series-version"] == ""
        assert resume._differences(one, other) == {"series-version": ""}

    def test_every_suite_is_part_of_the_code(self) -> None:
        names = {path.name for path in resume._code()}
        assert {"run.py", "plugin.py", "known_failures.toml", "init.c", "null_blk.toml"} <= names
        assert {"requirements.lock", "pyproject.toml"} <= names
        assert not any(path.suffix == ".pyc" for path in resume._code())


class TestTidy:
    def left(self, name: str) -> list[Path]:
        """A killed run's folders for own tests, one of them of a part that was resumed."""
        folder = a_run(name)
        left = [folder / ".own-mine", folder / "resumed-1" / ".own-mine"]
        for path in left:
            (path / "cache" / "snapshots").mkdir(parents=True)
        (folder / "guests").mkdir()
        return left

    def test_what_killed_runs_left_goes(self) -> None:
        left = [*self.left("20260101-000000"), *self.left("20260102-000000")]
        run._tidy(left[0].parent)
        assert not any(path.exists() for path in left)
        assert (left[0].parent / "guests").is_dir()

    def test_what_is_in_use_stays(self) -> None:
        one, other = self.left("20260101-000000")
        with store.in_use(one):
            run._tidy(settings().results_dir / "20260102-000000")
        assert one.exists()
        assert not other.exists()

    def test_what_a_run_has_that_goes_on_stays(self) -> None:
        left = self.left("20260101-000000")
        past = resume.find("20260101-000000", OPTIONS).past
        goes_on = Journal.reopened(left[0].parent, past, "now")
        run._tidy(settings().results_dir / "20260102-000000")
        assert all(path.exists() for path in left)
        goes_on.close()

    def test_what_is_no_run_is_left_alone(self) -> None:
        mine = settings().results_dir / "mine" / ".own-folder"
        mine.mkdir(parents=True)
        run._tidy(settings().results_dir / "20260102-000000")
        assert mine.exists()

    def test_links_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        folder = a_run("20260101-000000")
        (folder / ".own-mine").symlink_to(tmp_path)
        run._tidy(folder)
        assert (tmp_path / "cache").exists()

    def test_a_folder_for_own_tests_is_held(self, tmp_path: Path) -> None:
        with own_folder.of_a_run(tmp_path, "mine") as folder:
            own_folder.remove_left(tmp_path)
            assert folder.exists()
        assert not folder.exists()


def test_planned_tests_have_the_names_of_lists() -> None:
    assert [type(one) for one in HEADER.tests] == [Planned] * 4
