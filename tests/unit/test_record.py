# SPDX-License-Identifier: GPL-2.0-or-later
"""The run record and its JUnit file."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest

from blockyard.ci.run import record
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure, UsageError
from blockyard.kernel.host.settings import settings
from blockyard.tests.harness.outcomes import BAD, Outcome
from blockyard.tests.unit.samples import result, run_of

EVERY_OUTCOME = run_of(*(result(outcome, f"io/{outcome}") for outcome in get_args(Outcome)))


class TestRecord:
    def test_written_record_reads_back(self) -> None:
        directory = record.new_directory("7.3")
        path = record.write(EVERY_OUTCOME, directory)
        assert path == directory / "run.json"
        assert record.read(path) == EVERY_OUTCOME

    def test_fields_of_the_json(self) -> None:
        path = record.write(EVERY_OUTCOME, record.new_directory("7.3"))
        data = json.loads(path.read_text())
        assert data["schema"] == record.SCHEMA
        assert set(data) == {
            "schema",
            "run",
            "started",
            "seconds",
            "host",
            "arguments",
            "tool",
            "qemu",
            "accelerator",
            "kernel",
            "kernel_options",
            "guest_packages",
            "selection",
            "upstream",
            "obsolete_failures",
            "trusted_tests",
            "booted",
            "boots",
            "interrupted",
            "under_way",
            "resumed",
            "tests",
        }
        assert data["tests"][0] == {
            "id": "io/pass",
            "suite": "io",
            "driver": "null_blk",
            "console": "serial",
            "topology": "",
            "features": [],
            "outcome": "pass",
            "started": "",
            "seconds": 1.25,
            "reason": "",
            "skip": None,
            "kernel_log": "",
            "guest": "guests/null_blk-serial-1",
            "rerun": "",
        }

    def test_latest_links_to_the_last_run(self, home: Path) -> None:
        for _ in range(2):
            directory = record.new_directory("7.3")
            record.write(EVERY_OUTCOME, directory)
            assert (home / "results" / "latest").resolve() == directory
        names = [path.name for path in (home / "results").iterdir()]
        assert [name for name in names if name.startswith(".")] == []

    def test_latest_that_is_not_a_link_is_kept(
        self, home: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Made by a copy without symlinks, or by hand."""
        latest = home / "results" / "latest"
        for make in (lambda: latest.mkdir(parents=True), lambda: latest.write_text("mine")):
            make()
            directory = record.new_directory("7.3")
            assert record.read(record.write(EVERY_OUTCOME, directory)) == EVERY_OUTCOME
            assert not latest.is_symlink()
            assert "latest is not changed" in capsys.readouterr().err
            latest.rmdir() if latest.is_dir() else latest.unlink()
        latest.symlink_to("a run that is gone")
        record.write(EVERY_OUTCOME, directory)
        assert latest.resolve() == directory

    def test_record_goes_to_tmp_when_the_disk_is_full(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        directory = record.new_directory("7.3")
        write = store.write

        def full(path: Path, data: bytes) -> None:
            if path.parent == directory:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            write(path, data)

        monkeypatch.setattr(store, "write", full)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        path = record.write(EVERY_OUTCOME, directory)
        assert path.is_relative_to(tmp_path)
        assert record.read(path) == EVERY_OUTCOME
        assert (path.parent / "guests").readlink() == directory / "guests"
        assert f"(No space left on device): the record is {path}" in capsys.readouterr().err

    def test_record_that_cannot_be_written_is_reported(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def full(path: Path, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        directory = record.new_directory("7.3")
        monkeypatch.setattr(store, "write", full)
        record.write(EVERY_OUTCOME, directory)
        assert "nor to any other folder" in capsys.readouterr().err

    def test_runs_in_the_same_second_have_distinct_folders(self) -> None:
        folders = {record.new_directory("7.3") for _ in range(10)}
        assert len(folders) == 10
        assert all(folder.is_dir() for folder in folders)

    def test_results_folder_that_cannot_be_made_is_a_failure(self, home: Path) -> None:
        (home / "results").write_text("a file")
        with pytest.raises(Failure, match="cannot write to") as caught:
            record.new_directory("7.3")
        assert "BLOCKYARD_RESULTS" in caught.value.hint

    def test_check_refuses_an_unwritable_folder_and_creates_nothing(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record.check_writable()
        assert list(home.iterdir()) == []
        (home / "results").write_text("a file")
        with pytest.raises(Failure, match="cannot write to"):
            record.check_writable()
        monkeypatch.setenv("BLOCKYARD_RESULTS", "/proc/results")
        settings.cache_clear()
        with pytest.raises(Failure, match="cannot write to /proc/results"):
            record.check_writable()

    def test_control_characters_survive(self) -> None:
        run = run_of(result("fail", reason="\x1e\x00\x1b[31m \u20ac", kernel_log="\x07"))
        path = record.write(run, record.new_directory("7.3"))
        assert record.read(path) == run


class TestRead:
    @pytest.mark.parametrize(
        "change", [{"schema": 99}, {"tests": "none"}, {"kernel": None}, {"tests": [{"id": "x"}]}]
    )
    def test_unknown_schema_or_type_is_refused(
        self, tmp_path: Path, change: dict[str, object]
    ) -> None:
        path = record.write(EVERY_OUTCOME, record.new_directory("7.3"))
        data = json.loads(path.read_text()) | change
        other = tmp_path / "run.json"
        other.write_text(json.dumps(data))
        with pytest.raises(UsageError, match="is (not )?a run record"):
            record.read(other)

    def test_missing_file_and_invalid_json_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(
            UsageError, match="cannot read the run record .*none.json: No such file"
        ):
            record.read(tmp_path / "none.json")
        (tmp_path / "run.json").write_text("{")
        with pytest.raises(UsageError, match="is (not )?a run record"):
            record.read(tmp_path / "run.json")

    @pytest.mark.parametrize("text", ['{"zz":' + "[" * 100_000, '{"schema":1,"run":"\udcff"}'])
    def test_hostile_json_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(UsageError, match="is not a run record"):
            record.read(tmp_path / "run.json")

    def test_fifo_is_refused(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "run.json")
        with pytest.raises(UsageError, match="not a regular file"):
            record.read(tmp_path / "run.json")


class TestOk:
    @pytest.mark.parametrize("outcome", get_args(Outcome))
    def test_bad_outcome_makes_the_run_bad(self, outcome: Outcome) -> None:
        assert run_of(result("pass"), result(outcome)).ok == (outcome not in BAD)

    def test_run_without_tests_is_not_ok(self) -> None:
        assert not run_of().ok

    def test_outcomes_are_counted_by_driver(self) -> None:
        run = run_of(result("pass"), result("pass"), result("skip"), result("pass", driver="nvme"))
        assert run.count("null_blk") == {"pass": 2, "skip": 1}
        assert run.count("nvme") == {"pass": 1}


class TestJunit:
    def parsed(self, run: record.Run) -> ElementTree.Element:
        return ElementTree.fromstring(record.junit(run))

    def test_one_suite_per_driver_and_console(self) -> None:
        run = run_of(result("pass"), result("pass", console="ssh"), result("fail", driver="nvme"))
        suites = self.parsed(run).findall("testsuite")
        assert [suite.get("name") for suite in suites] == [
            "null_blk-serial",
            "null_blk-ssh",
            "nvme-serial",
        ]

    def test_outcomes_map_to_junit_elements(self) -> None:
        (suite,) = self.parsed(EVERY_OUTCOME).findall("testsuite")
        elements = {
            case.get("name"): [child.tag for child in case] for case in suite.findall("testcase")
        }
        assert elements == {
            "io/pass": [],
            "io/fail": ["failure"],
            "io/crash": ["error"],
            "io/timeout": ["error"],
            "io/lost": ["error"],
            "io/skip": ["skipped"],
            "io/xfail": ["skipped"],
            "io/xpass": [],
        }
        assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == [
            "8",
            "1",
            "3",
            "2",
        ]

    def test_failure_has_reason_and_kernel_log(self) -> None:
        run = run_of(result("fail", reason='"<&>', kernel_log="BUG: <x>\n next"))
        failure = self.parsed(run).find("testsuite/testcase/failure")
        assert failure is not None
        assert (failure.get("message"), failure.text) == ('"<&>', "BUG: <x>\n next")

    def test_rerun_command_is_a_property(self) -> None:
        cases = self.parsed(run_of(result("fail", rerun="./inv test -k 'x'"), result("pass")))
        (entry,) = cases.findall("testsuite/testcase/properties/property")
        assert (entry.get("name"), entry.get("value")) == ("rerun", "./inv test -k 'x'")

    def test_characters_that_xml_cannot_hold_are_dropped(self) -> None:
        text = "".join(map(chr, [*range(0x20), 0x7F, 0xFFFE, 0xFFFF]))
        run = run_of(result("fail", reason=text, kernel_log=f"a{text}b"))
        failure = self.parsed(run).find("testsuite/testcase/failure")
        assert failure is not None
        assert failure.text == "a\t\n\n\x7fb"
