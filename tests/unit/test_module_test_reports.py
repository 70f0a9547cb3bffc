# SPDX-License-Identifier: GPL-2.0-or-later
"""What a module's own tests may report, and what is taken for forged."""

from __future__ import annotations

from dataclasses import fields

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.ci.run import verdicts
from blockyard.ci.run.module_tests import reports
from blockyard.ci.run.module_tests.reports import (
    Begun,
    Ended,
    Facts,
    Forged,
    Line,
    Phase,
    Reader,
    Test,
)

MINE = "test_mine.py::test_x[mine-serial]"
OTHERS = "tests/suites/block/test_io.py::test_read[null_blk-serial]"


def data(line: Line) -> bytes:
    return msgspec.json.encode(line)


def phase(when: str, nodeid: str = MINE, **more: object) -> bytes:
    values = {"type": "phase", "nodeid": nodeid, "when": when, "outcome": "passed"}
    return msgspec.json.encode({"duration": 0.5, "facts": {"outcome": "pass"}, **values, **more})


def a_test(nodeid: str, name: str = "x") -> Test:
    return Test(nodeid, name, "mine", "serial", "")


class TestRun:
    def test_a_test_from_its_begin_to_its_end(self) -> None:
        reader = Reader([MINE])
        reader.read(data(Begun(MINE)))
        assert list(reader.running) == [MINE]
        for when in ("setup", "call", "teardown"):
            line = reader.read(phase(when, facts={"outcome": "pass", "guest": "guests/mine-1"}))
            assert isinstance(line, Phase)
        assert not reader.running
        reader.read(data(Ended(0)))
        assert reader.ended == Ended(0)

    @pytest.mark.parametrize(
        "line",
        [
            phase("setup", OTHERS),  # the verdict of another driver
            data(Begun(OTHERS)),
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
            data(a_test(MINE)),  # no time to collect tests
            b"",
            b"\xff",
            b"[" * 100_000,
            b'{"type": "else"}',
        ],
        ids=range(19),
    )
    def test_what_cannot_be(self, line: bytes) -> None:
        with pytest.raises(Forged):
            Reader([MINE]).read(line)

    @pytest.mark.parametrize("first", ["setup", "call", "teardown"])
    def test_an_outcome_is_not_changed_afterwards(self, first: str) -> None:
        reader = Reader([MINE])
        reader.read(phase(first))
        with pytest.raises(Forged, match="second"):
            reader.read(phase(first))

    def test_a_worker_that_died_is_reported_without_facts(self) -> None:
        reader = Reader([MINE])
        reader.read(data(Begun(MINE)))
        reader.read(phase("setup"))
        reader.read(phase("???", outcome="failed", facts=None))
        assert not reader.running

    def test_nothing_follows_the_end(self) -> None:
        reader = Reader([MINE])
        reader.read(data(Ended(0)))
        with pytest.raises(Forged, match="behind the last"):
            reader.read(data(Begun(MINE)))


class TestCollection:
    def test_tests_are_found_in_their_order(self) -> None:
        reader = Reader(())
        for name in ("b", "a"):
            reader.read(data(a_test(name)))
        assert list(reader.tests) == ["b", "a"]

    @pytest.mark.parametrize(
        "line", [a_test("a"), a_test("b", "x\x1b[2J"), a_test("b", "a\nb"), a_test("")]
    )
    def test_what_cannot_be(self, line: Test) -> None:
        reader = Reader(())
        reader.read(data(a_test("a")))
        with pytest.raises(Forged):
            reader.read(data(line))

    def test_there_is_an_end_to_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reports, "TESTS", 2)
        reader = Reader(())
        reader.read(data(a_test("a")))
        reader.read(data(a_test("b")))
        with pytest.raises(Forged, match="too many"):
            reader.read(data(a_test("c")))


def test_facts_hold_all_that_a_verdict_is_made_of() -> None:
    used = {one.name for one in fields(verdicts._Phases)} - {"seconds"}
    assert used <= set(Facts.__struct_fields__)


@given(st.lists(st.binary(max_size=60) | st.sampled_from([phase("call"), data(Begun(MINE))])))
def test_any_bytes_are_read_or_forged(lines: list[bytes]) -> None:
    reader = Reader([MINE])
    for line in lines:
        try:
            reader.read(line)
        except Forged:
            return
