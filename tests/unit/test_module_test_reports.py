# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports from a module's own tests: valid ones are read, forged ones are refused."""

from __future__ import annotations

from dataclasses import fields

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.ci.run import verdicts
from blockyard.ci.run.module_tests import reports
from blockyard.ci.run.module_tests.reports import (
    Facts,
    Finished,
    Forged,
    Line,
    Phase,
    Reader,
    Started,
    Test,
)

MINE = "test_mine.py::test_x[mine-serial]"
OTHERS = "tests/suites/block/test_io.py::test_read[null_blk-serial]"


def data(line: Line) -> bytes:
    return msgspec.json.encode(line)


def phase(when: str, nodeid: str = MINE, **more: object) -> bytes:
    values = {"type": "phase", "nodeid": nodeid, "when": when, "outcome": "passed"}
    return msgspec.json.encode({"duration": 0.5, "facts": {"outcome": "pass"}, **values, **more})


def make_test(nodeid: str, name: str = "x") -> Test:
    return Test(nodeid, name, "mine", "serial", "")


class TestRun:
    def test_one_test_from_start_to_end(self) -> None:
        reader = Reader([MINE])
        reader.read(data(Started(MINE)))
        assert list(reader.running) == [MINE]
        for when in ("setup", "call", "teardown"):
            line = reader.read(phase(when, facts={"outcome": "pass", "guest": "guests/mine-1"}))
            assert isinstance(line, Phase)
        assert not reader.running
        reader.read(data(Finished(0)))
        assert reader.finished == Finished(0)

    @pytest.mark.parametrize(
        "line",
        [
            phase("setup", OTHERS),  # the verdict of another driver
            data(Started(OTHERS)),
            phase("setup", outcome="fine"),
            phase("later"),
            phase("setup", duration=-1.0),
            phase("setup", duration=1e300),
            phase("setup", facts=None),
            phase("teardown", facts=None),
            phase("setup", facts={"outcome": "great"}),
            phase("setup", facts={"outcome": "pass", "reason": 5}),
            phase("setup", facts={"outcome": "pass", "guest": "../../../etc"}),
            phase("setup", facts={"outcome": "pass", "guest": "guests/a/b"}),
            phase("setup", facts={"outcome": "pass", "guest": "guests/.."}),
            phase("setup", facts={"outcome": "pass", "guest": "guests/a\n"}),
            data(make_test(MINE)),  # collection is over
            b"",
            b"\xff",
            b"[" * 100_000,
            b'{"type": "else"}',
        ],
        ids=range(19),
    )
    def test_invalid_line_is_forged(self, line: bytes) -> None:
        with pytest.raises(Forged):
            Reader([MINE]).read(line)

    @pytest.mark.parametrize("first", ["setup", "call", "teardown"])
    def test_second_report_of_a_phase_is_forged(self, first: str) -> None:
        reader = Reader([MINE])
        reader.read(phase(first))
        with pytest.raises(Forged, match="second"):
            reader.read(phase(first))

    def test_report_of_a_dead_worker_has_no_facts(self) -> None:
        reader = Reader([MINE])
        reader.read(data(Started(MINE)))
        reader.read(phase("setup"))
        reader.read(phase("???", outcome="failed", facts=None))
        assert not reader.running

    def test_line_after_the_end_is_forged(self) -> None:
        reader = Reader([MINE])
        reader.read(data(Finished(0)))
        with pytest.raises(Forged, match="after the last"):
            reader.read(data(Started(MINE)))


class TestCollection:
    def test_order_of_tests_is_kept(self) -> None:
        reader = Reader(())
        for name in ("b", "a"):
            reader.read(data(make_test(name)))
        assert list(reader.tests) == ["b", "a"]

    @pytest.mark.parametrize(
        "line", [make_test("a"), make_test("b", "x\x1b[2J"), make_test("b", "a\nb"), make_test("")]
    )
    def test_invalid_line_is_forged(self, line: Test) -> None:
        reader = Reader(())
        reader.read(data(make_test("a")))
        with pytest.raises(Forged):
            reader.read(data(line))

    def test_number_of_tests_is_limited(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reports, "TESTS", 2)
        reader = Reader(())
        reader.read(data(make_test("a")))
        reader.read(data(make_test("b")))
        with pytest.raises(Forged, match="an unexpected test"):
            reader.read(data(make_test("c")))


def test_facts_have_every_field_of_a_verdict() -> None:
    used = {field.name for field in fields(verdicts._Phases)} - {"seconds"}
    assert used <= set(Facts.__struct_fields__)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([phase("call"), data(Started(MINE))])))
def test_arbitrary_bytes_are_read_or_forged(lines: list[bytes]) -> None:
    reader = Reader([MINE])
    for line in lines:
        try:
            reader.read(line)
        except Forged:
            return
