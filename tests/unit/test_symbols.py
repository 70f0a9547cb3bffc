# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses become names of functions."""

from __future__ import annotations

import pytest

from blockyard.images.log.symbols import Symbols

SYMBOLS = Symbols((0x1000, 0x1200, 0x2000, 0x3000), ("first", "second", "third", "_etext"))


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (0x1000, "first+0x0"),
        (0x11FF, "first+0x1ff"),
        (0x1204, "second+0x4"),
        (0x2FFF, "third+0xfff"),
        (0xFFF, "0xfff"),
        (0x3000, "0x3000"),
        (0xFFFFFFFFC0000000, "0xffffffffc0000000"),
    ],
)
def test_address_becomes_function_and_offset(address: int, name: str) -> None:
    assert SYMBOLS.name(address) == name


def test_kernel_without_symbols_keeps_addresses() -> None:
    assert Symbols((), ()).name(0xFFFFFFFF81000000) == "0xffffffff81000000"
