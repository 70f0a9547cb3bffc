# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that do not come up: how long a run goes on trying."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.errors import GuestSilent
from images.setup import Setup
from modules.driver import LoadFailed
from tests import guests
from tests.guests import THAT_MAY_FAIL, Guests, Slot
from tests.outcomes import NotTried, of_exception
from tests.plan import Plan
from tests.unit import samples

SERIAL = Slot("null_blk", "serial")
SSH = Slot("null_blk", "ssh")


class Boots:
    """Counts what a run boots; `works` says whether it comes up."""

    def __init__(self, *, works: bool) -> None:
        self.count = 0
        self.works = works

    @contextlib.contextmanager
    def machine(self, setup: Setup) -> Iterator[None]:
        self.count += 1
        if not self.works:
            raise GuestSilent("the guest did not come up in 150 s")
        yield


def the_guests(boots: Boots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
    def load(self: Guests, slot: Slot, booted: object, name: str) -> None:
        raise LoadFailed(f"cannot load {slot.driver}")

    kernel = samples.kernel(tmp_path / "kernel", "CONFIG_VIRTIO_CONSOLE=y\n")
    monkeypatch.setattr(guests, "machine", boots.machine)
    monkeypatch.setattr(Guests, "_load", load)
    plan = Plan(
        drivers=("null_blk",),
        consoles=("serial", "ssh"),
        directory=str(tmp_path),
        kernel=str(kernel.path),
        tools=str(tmp_path),
    )
    return Guests(plan, "")


def test_after_three_boots_in_a_row_nothing_is_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(works=False)
    some = the_guests(boots, tmp_path, monkeypatch)
    for slot in (SERIAL, SSH, SERIAL):
        with pytest.raises(GuestSilent):
            some.get(slot)
    with pytest.raises(NotTried, match=r"3 boots in a row failed, the last: .*did not come up"):
        some.get(SSH)
    assert boots.count == THAT_MAY_FAIL


def test_a_driver_that_does_not_load_stops_its_own_tests_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(works=True)
    some = the_guests(boots, tmp_path, monkeypatch)
    for _ in range(2 * THAT_MAY_FAIL):
        with pytest.raises(LoadFailed):
            some.get(SERIAL)
    assert boots.count == THAT_MAY_FAIL
    with pytest.raises(LoadFailed):
        some.get(SSH)
    assert boots.count == THAT_MAY_FAIL + 1


def test_what_was_not_tried_is_lost() -> None:
    assert of_exception(NotTried("x")) == "lost"
