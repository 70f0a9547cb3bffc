# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest said is shown, and not obeyed."""

from __future__ import annotations

import pytest

from kernel.host.progress import printable


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("plain\n\ttext € 1:2::3", "plain\n\ttext € 1:2::3"),
        ("\x1b]0;title\x07\x1b[2J", "\\x1b]0;title\\x07\\x1b[2J"),
        ("over\rwritten\x9b31m\x7f\x00", "over\\x0dwritten\\x9b31m\\x7f\\x00"),
        ("one\n    ::error::from the guest", "one\n    \\x3a:error::from the guest"),
        ("::set-output name=a::b", "\\x3a:set-output name=a::b"),
    ],
)
def test_it_is_only_text(said: str, shown: str) -> None:
    assert printable(said) == shown
