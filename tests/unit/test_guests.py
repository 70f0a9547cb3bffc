# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that do not come up: how long a run goes on trying."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import msgspec
import pytest

from blockyard.images.errors import BootTimeout, CommandHung, ImageDamaged
from blockyard.images.hardware import topologies
from blockyard.images.machine import qemu_features
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host import store
from blockyard.modules import manifest
from blockyard.modules.driver import Driver, LoadFailed, NoDisk
from blockyard.modules.serves import Serves
from blockyard.tests.harness import guests
from blockyard.tests.harness.guests import MAX_CONSECUTIVE_FAILURES, Guests, NotServed, Slot
from blockyard.tests.harness.outcomes import GuestUnavailable, SkipReason, of_exception
from blockyard.tests.harness.plan import Plan, Scope
from blockyard.tests.unit import samples

SERIAL = Slot("null_blk", "serial")
SSH = Slot("null_blk", "ssh")


class Booted:
    """A guest with a kernel log, whose commands all succeed and print nothing."""

    def __init__(self, setup: VmConfig, log: str) -> None:
        self.log = SimpleNamespace(text=lambda: log)
        self.setup = setup

    def console(self, name: str) -> Mock:
        console = Mock(topology=self.setup.topology.name)
        console.check.return_value = ""
        return console


class Boots:
    """Counts what a run boots; `works` says whether it comes up, `log` what its kernel says."""

    def __init__(self, *, works: bool, log: str = "") -> None:
        self.count = 0
        self.works = works
        self.log = log

    @contextlib.contextmanager
    def boot(self, setup: VmConfig) -> Iterator[Booted]:
        self.count += 1
        if not self.works:
            raise BootTimeout("the guest did not come up in 150 s")
        yield Booted(setup, self.log)


def the_guests(boots: Boots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
    def load(driver: Driver) -> None:
        raise LoadFailed(f"cannot load {driver.name}")

    return _guests(boots, load, tmp_path, monkeypatch)


def _guests(
    boots: Boots,
    load: Callable[[Driver], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Guests:
    kernel = store.directory("kernels") / "entry"
    samples.kernel(kernel, "CONFIG_VIRTIO_CONSOLE=y\nCONFIG_BLK_DEV_NVME=m\n")
    monkeypatch.setattr(guests, "boot", boots.boot)
    # there is no QEMU to ask
    monkeypatch.setattr(qemu_features, "missing_feature", lambda topology, tools: "")
    monkeypatch.setattr(Driver, "load", load)
    scope = Scope(drivers=("null_blk",), consoles=("serial", "ssh"))
    return Guests(Plan(scope=scope, env=samples.env_keys()), tmp_path, "")


def test_after_three_boots_in_a_row_nothing_is_booted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(works=False)
    some = the_guests(boots, tmp_path, monkeypatch)
    for slot in (SERIAL, SSH, SERIAL):
        with pytest.raises(BootTimeout):
            some.get(slot)
    with pytest.raises(
        GuestUnavailable, match=r"3 boots in a row failed, the last: .*did not come up"
    ):
        some.get(SSH)
    assert boots.count == MAX_CONSECUTIVE_FAILURES


def test_a_driver_that_does_not_load_stops_its_own_tests_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(works=True)
    some = the_guests(boots, tmp_path, monkeypatch)
    for _ in range(2 * MAX_CONSECUTIVE_FAILURES):
        with pytest.raises(LoadFailed):
            some.get(SERIAL)
    assert boots.count == MAX_CONSECUTIVE_FAILURES
    with pytest.raises(LoadFailed):
        some.get(SSH)
    assert boots.count == MAX_CONSECUTIVE_FAILURES + 1


def test_what_was_not_tried_is_lost() -> None:
    assert of_exception(GuestUnavailable("x")) == "lost"
    assert of_exception(ImageDamaged("x")) == "lost"
    assert of_exception(CommandHung("x")) == "timeout"


class TestHardware:
    """A driver that finds no disk on some hardware."""

    ZNS = Slot("nvme", "serial", "zns")

    def guests(
        self, boots: Boots, on: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Guests:
        def load(driver: Driver) -> None:
            if driver.console.topology not in on:  # type: ignore[attr-defined]  # a Mock
                raise NoDisk(
                    "nvme: no disk appeared within 10 s:\n[    1.0] nvme0n1: not supported"
                )

        return _guests(boots, load, tmp_path, monkeypatch)

    def test_its_tests_there_are_skipped_after_one_try(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        boots = Boots(works=True)
        some = self.guests(boots, {"default"}, tmp_path, monkeypatch)
        some.check(self.ZNS)
        with pytest.raises(NotServed, match="on zns, and does on default: nvme0n1: not supported"):
            some.get(self.ZNS)
        with pytest.raises(NotServed, match="nvme0n1: not supported") as caught:
            some.check(Slot("nvme", "ssh", "zns"))
        reason = caught.value.reason
        assert (reason.lacking, reason.what) == ("driver", "topology:zns")
        assert "\n" not in reason.text
        assert boots.count == 2  # on zns, and once on the default topology
        some.check(Slot("nvme", "serial", "metadata"))

    def test_one_that_finds_none_anywhere_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = self.guests(Boots(works=True), set(), tmp_path, monkeypatch)
        for slot in (self.ZNS, Slot("nvme", "serial")):
            with pytest.raises(NoDisk):
                some.get(slot)
            some.check(slot)

    def test_a_splat_is_one_failure_and_the_others_name_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        boots = Boots(works=True, log="[    1.0] WARNING: drivers/nvme/x.c:1 at y\n")
        some = self.guests(boots, {"default"}, tmp_path, monkeypatch)
        with pytest.raises(NoDisk) as caught:
            some.get(self.ZNS, "test_report")
        assert "drivers/nvme/x.c" in caught.value.kernel_log
        with pytest.raises(NotServed, match="see test_report: WARNING: "):
            some.check(self.ZNS)
        assert boots.count == 1

    def test_what_the_manifest_says_is_not_tried(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        some = self.guests(Boots(works=True), {"default"}, tmp_path, monkeypatch)
        plain = msgspec.structs.replace(manifest.load("nvme"), serves=Serves(zoned=False))
        monkeypatch.setattr(Plan, "manifest", lambda self, name: plain)
        with pytest.raises(NotServed) as caught:
            some.check(self.ZNS)
        assert caught.value.reason == SkipReason(
            lacking="driver",
            what="topology:zns",
            text="nvme serves no zoned namespaces, which zns has ([serves] in its manifest)",
        )
        some.check(Slot("nvme", "serial", "4k"))


@pytest.mark.parametrize(
    ("serves", "name", "words"),
    [
        (Serves(), "namespaces", ""),
        (Serves(namespaces=1), "default", ""),
        (Serves(namespaces=1), "namespaces", "no more than one namespace of a controller"),
        (Serves(metadata=False), "metadata", "no metadata"),
        (Serves(block_sizes=(512,)), "4k", "no blocks of 4096 bytes"),
        (Serves(block_sizes=(512, 4096)), "4k", ""),
        (Serves(zoned=False), "zns", "no zoned namespaces"),
    ],
)
def test_what_a_driver_serves(serves: Serves, name: str, words: str) -> None:
    problem = serves.problem(topologies.load(name))
    assert problem.startswith(words)
    assert bool(problem) == bool(words)
