# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal of a run: what survives a kill or a power cut, and how a run is resumed."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import msgspec
import pytest

from blockyard.ci.run import journal, past_run, record
from blockyard.ci.run.case_id import CaseId
from blockyard.ci.run.journal import Header, Journal, Planned
from blockyard.ci.run.verdicts import Collector
from blockyard.kernel.host.errors import UsageError
from blockyard.tests.harness.guests import Slot
from blockyard.tests.harness.known import Known
from blockyard.tests.harness.outcomes import CaseResult, Outcome
from blockyard.tests.unit.samples import result, run_of
from blockyard.tests.unit.test_outcomes import report

NAMES = tuple(f"io/{n}[null_blk-serial]" for n in range(4))


def planned(name: str) -> Planned:
    return Planned(
        name=name, id=name.partition("[")[0], suite="io", driver="null_blk", console="serial"
    )


HEADER = Header(
    requested={"kernel": "7.3"},
    inputs={"the kernel": "0123"},
    run=run_of(booted=False, seconds=0.0),
    tests=tuple(map(planned, NAMES)),
)


def of(name: str, outcome: Outcome = "pass") -> CaseResult:
    return result(outcome, name.partition("[")[0])


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    """A journal in which the first test passed and the second has started."""
    log = Journal.create(tmp_path, HEADER)
    log.started(NAMES[0])
    log.finished(NAMES[0], of(NAMES[0]), booted=True)
    log.started(NAMES[1])
    return log


def outcomes(run: record.Run) -> list[tuple[str, Outcome]]:
    return [(test.id, test.outcome) for test in run.tests]


class TestRecord:
    def test_record_of_a_killed_run(self, log: Journal, tmp_path: Path) -> None:
        """The journal was not closed: each line is written at once."""
        run = past_run.read(tmp_path)
        assert outcomes(run) == [
            ("io/0", "pass"),
            ("io/1", "lost"),
            ("io/2", "lost"),
            ("io/3", "lost"),
        ]
        assert run.interrupted and run.booted and not run.ok
        assert run.under_way == (NAMES[1],)
        assert run.tests[1].reason == "the run ended during this test"
        assert run.tests[2].reason == "the run ended before this test"
        assert past_run.read(tmp_path / "run.json") == run

    def test_run_json_wins_over_the_journal(self, log: Journal, tmp_path: Path) -> None:
        whole = run_of(result("pass"))
        record.write(whole, tmp_path)
        assert past_run.read(tmp_path) == whole

    @pytest.mark.parametrize("cut", range(1, 60, 7))
    def test_truncated_line_is_ignored(self, log: Journal, tmp_path: Path, cut: int) -> None:
        path = tmp_path / journal.FILE
        before = journal.read(path)
        log.finished(NAMES[1], of(NAMES[1], "fail"), booted=True)
        with open(path, "r+b") as file:
            file.truncate(path.stat().st_size - cut)
        assert journal.read(path) == before

    def test_lines_after_zeroed_blocks_are_ignored(self, log: Journal, tmp_path: Path) -> None:
        path = tmp_path / journal.FILE
        before = journal.read(path)
        with open(path, "ab") as file:
            file.write(bytes(4096) + b"\n" + msgspec.json.encode(journal.Started("x", 1.0)) + b"\n")
        assert journal.read(path) == before

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "\n",
            "{}\n",
            '{"line":"run"}\n',
            "\x00\n",
            '{"line":"run","x":' + "[" * 99_999 + "\n",
        ],
    )
    def test_invalid_journal_is_a_usage_error(self, tmp_path: Path, text: str) -> None:
        (tmp_path / journal.FILE).write_text(text)
        with pytest.raises(UsageError, match="is not the journal of a run"):
            past_run.read(tmp_path)
        assert journal.read_header(tmp_path / journal.FILE) is None

    def test_journal_of_a_newer_format_is_a_usage_error(self, tmp_path: Path) -> None:
        Journal.create(tmp_path, msgspec.structs.replace(HEADER, format=99)).close()
        with pytest.raises(UsageError, match="another format, expected 1 to 2"):
            past_run.read(tmp_path)


class TestResume:
    def test_parts_make_one_run(self, log: Journal, tmp_path: Path) -> None:
        log.close()
        past = journal.read(tmp_path / journal.FILE)
        again = Journal.reopen(tmp_path, past, "2026-01-02T04:00:00Z")
        for name in NAMES[1:]:
            again.started(name)
            again.finished(name, of(name, "skip"), booted=False)
        again.close()
        run = past_run.read(tmp_path)
        assert [test.outcome for test in run.tests] == ["pass", "skip", "skip", "skip"]
        assert run.resumed == ("2026-01-02T04:00:00Z",)
        assert run.under_way == ()
        assert run.booted

    def test_killed_part_replaces_the_earlier_record(self, log: Journal, tmp_path: Path) -> None:
        log.close()
        past = journal.read(tmp_path / journal.FILE)
        record.write(past.record(), tmp_path)
        again = Journal.reopen(tmp_path, past, "now")
        again.finished(NAMES[1], of(NAMES[1]), booted=True)
        run = past_run.read(tmp_path)  # the journal was not closed
        assert [test.outcome for test in run.tests] == ["pass", "pass", "lost", "lost"]
        assert run.interrupted
        names = {path.name for path in tmp_path.iterdir()}
        assert {"run.json.interrupted", "junit.xml.interrupted"} <= names
        record.write(run_of(result("pass")), tmp_path)
        assert past_run.read(tmp_path) == run_of(result("pass"))

    def test_reopening_waits_for_readers(self, log: Journal, tmp_path: Path) -> None:
        assert journal.is_running(tmp_path)
        log.close()
        assert not journal.is_running(tmp_path)
        path = tmp_path / journal.FILE
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            timer = threading.Timer(0.03, fcntl.flock, (file, fcntl.LOCK_UN))
            timer.start()
            Journal.reopen(tmp_path, journal.read(path), "now").close()
            timer.join()

    def test_reopening_a_running_run_keeps_its_record(self, log: Journal, tmp_path: Path) -> None:
        past = journal.read(tmp_path / journal.FILE)
        record.write(past.record(), tmp_path)
        with pytest.raises(UsageError, match="is still running"):
            Journal.reopen(tmp_path, past, "now")
        assert (tmp_path / "run.json").exists()

    def test_truncated_line_is_removed_on_reopening(self, log: Journal, tmp_path: Path) -> None:
        log.close()
        path = tmp_path / journal.FILE
        with open(path, "ab") as file:
            file.write(b'{"line":"fini')
        past = journal.read(path)
        again = Journal.reopen(tmp_path, past, "now")
        again.finished(NAMES[1], of(NAMES[1], "fail"), booted=True)
        assert [test.outcome for test in past_run.read(tmp_path).tests[:2]] == ["pass", "fail"]

    def test_lost_test_is_not_known(self, log: Journal, tmp_path: Path) -> None:
        log.finished(NAMES[1], of(NAMES[1], "lost"), booted=True)
        assert set(journal.read(tmp_path / journal.FILE).conclusive) == {NAMES[0]}

    def test_reopening_a_running_run_is_a_usage_error(self, log: Journal, tmp_path: Path) -> None:
        past = journal.read(tmp_path / journal.FILE)
        with pytest.raises(UsageError, match="is still running"):
            Journal.reopen(tmp_path, past, "now")
        assert journal.read(tmp_path / journal.FILE) == past

    def test_reopening_a_changed_journal_is_a_usage_error(
        self, log: Journal, tmp_path: Path
    ) -> None:
        past = journal.read(tmp_path / journal.FILE)
        log.finished(NAMES[1], of(NAMES[1]), booted=True)
        log.close()
        whole = (tmp_path / journal.FILE).read_bytes()
        with pytest.raises(UsageError, match="was resumed by another process"):
            Journal.reopen(tmp_path, past, "now")
        assert (tmp_path / journal.FILE).read_bytes() == whole


class TestDiskErrors:
    def test_outcomes_are_kept_while_the_disk_is_full(
        self,
        log: Journal,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        write = os.write

        def half(file: int, data: bytes) -> int:
            if len(data) < 10:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, data[: len(data) // 2])

        monkeypatch.setattr(os, "write", half)
        log.finished(NAMES[1], of(NAMES[1]), booted=True)
        log.started(NAMES[2])
        assert set(journal.read(tmp_path / journal.FILE).results) >= {NAMES[0]}
        monkeypatch.undo()
        log.close()
        past = journal.read(tmp_path / journal.FILE)
        assert (set(past.results), past.under_way) == ({NAMES[0], NAMES[1]}, (NAMES[2],))
        err = capsys.readouterr().err
        assert err.count("No space left on device; outcomes are kept in memory") == 1

    def test_outcomes_are_kept_without_a_file(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = Journal.create(tmp_path / "gone", HEADER)
        log.finished(NAMES[0], of(NAMES[0]), booted=True)
        log.close()
        assert "outcomes are kept in memory" in capsys.readouterr().err


class TestCollector:
    """Reports of pytest become lines of the journal."""

    def test_start_and_end_of_each_test_are_written(self, log: Journal, tmp_path: Path) -> None:
        slot = Slot("null_blk", "serial")
        names = {f"t::{n}": CaseId("io", str(n), slot) for n in (1, 2, 3)}
        collector = Collector(names, Known((), "7.3.4", "plain"), journal=log, folder="resumed-1/")
        facts = {"booted": True, "guest": "guests/g1", "outcome": "fail", "reason": "why"}
        collector.pytest_runtest_logstart("t::1")
        collector.pytest_runtest_logreport(report("t::1", "call", failed=True, facts=facts))
        assert journal.read(tmp_path / journal.FILE).under_way == (NAMES[1],)
        collector.pytest_runtest_logreport(report("t::1", "teardown"))
        collector.pytest_runtest_logstart("t::2")
        past = journal.read(tmp_path / journal.FILE)
        assert past.results[NAMES[1]].outcome == "fail"
        assert past.results[NAMES[1]].guest == "resumed-1/guests/g1"
        assert past.under_way == collector.under_way.names() == (NAMES[2],)
        assert collector.booted
        assert [(test.id, test.outcome, test.reason) for test in collector.finish()] == [
            ("io/1", "fail", "why"),
            ("io/2", "lost", "the run ended during this test"),
            ("io/3", "lost", "the run ended before this test"),
        ]

    def test_results_of_earlier_parts_are_counted(
        self, log: Journal, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = {"t::1": CaseId("io", "1", Slot("null_blk", "serial"))}
        earlier = {NAMES[0]: of(NAMES[0])}
        collector = Collector(names, Known((), "7.3.4", "plain"), journal=log, earlier=earlier)
        collector.pytest_runtest_logreport(report("t::1", "teardown"))
        assert [test.id for test in collector.finish()] == ["io/0", "io/1"]
        assert "[2/2] pass    io/1[null_blk-serial]" in capsys.readouterr().err
