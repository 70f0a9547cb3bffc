# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables of pages and the reasons below them."""

from __future__ import annotations

from ci import output


def test_a_cell_cannot_break_its_table() -> None:
    lines = output.markdown(["a", "b"], [["1|2", "two\nlines"]])
    assert lines == ["| a | b |", "| --- | --- |", r"| 1\|2 | two lines |"]


def test_a_reason_stands_once() -> None:
    notes = output.Notes()
    assert [notes.mark(one) for one in ("no Rust", "no disk", "no Rust")] == ["(1)", "(2)", "(1)"]
    assert notes.lines() == ["1. no Rust", "2. no disk"]
