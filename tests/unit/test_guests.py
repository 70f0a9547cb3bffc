# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that do not boot, drivers that do not load, and when a run stops trying."""

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
    """Counts boots; `works` says whether they succeed, `log` is the kernel log."""

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


def guests_without_driver(boots: Boots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
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
    # unit tests have no QEMU
    monkeypatch.setattr(qemu_features, "missing_feature", lambda topology, tools: "")
    monkeypatch.setattr(Driver, "load", load)
    scope = Scope(drivers=("null_blk",), consoles=("serial", "ssh"))
    return Guests(Plan(scope=scope, env=samples.env_keys()), tmp_path, "")


def test_no_boot_after_three_failed_boots_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(works=False)
    run = guests_without_driver(boots, tmp_path, monkeypatch)
    for slot in (SERIAL, SSH, SERIAL):
        with pytest.raises(BootTimeout):
            run.get(slot)
    with pytest.raises(
        GuestUnavailable, match=r"3 boots in a row failed, the last: .*did not come up"
    ):
        run.get(SSH)
    assert boots.count == MAX_CONSECUTIVE_FAILURES


def test_driver_that_does_not_load_stops_only_its_own_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = Boots(works=True)
    run = guests_without_driver(boots, tmp_path, monkeypatch)
    for _ in range(2 * MAX_CONSECUTIVE_FAILURES):
        with pytest.raises(LoadFailed):
            run.get(SERIAL)
    assert boots.count == MAX_CONSECUTIVE_FAILURES
    with pytest.raises(LoadFailed):
        run.get(SSH)
    assert boots.count == MAX_CONSECUTIVE_FAILURES + 1


def test_outcome_of_exceptions() -> None:
    assert of_exception(GuestUnavailable("x")) == "lost"
    assert of_exception(ImageDamaged("x")) == "lost"
    assert of_exception(CommandHung("x")) == "timeout"


class TestTopology:
    """A driver that finds no disk on some topologies."""

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

    def test_topology_without_disks_is_skipped_after_one_attempt(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        boots = Boots(works=True)
        run = self.guests(boots, {"default"}, tmp_path, monkeypatch)
        run.check(self.ZNS)
        with pytest.raises(NotServed, match="but finds one on default: nvme0n1: not supported"):
            run.get(self.ZNS)
        with pytest.raises(NotServed, match="nvme0n1: not supported") as caught:
            run.check(Slot("nvme", "ssh", "zns"))
        reason = caught.value.reason
        assert (reason.lacking, reason.what) == ("driver", "topology:zns")
        assert "\n" not in reason.text
        assert boots.count == 2  # on zns, and once on the default topology
        run.check(Slot("nvme", "serial", "metadata"))

    def test_driver_that_finds_no_disk_at_all_fails(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = self.guests(Boots(works=True), set(), tmp_path, monkeypatch)
        for slot in (self.ZNS, Slot("nvme", "serial")):
            with pytest.raises(NoDisk):
                run.get(slot)
            run.check(slot)

    def test_splat_fails_one_test_and_skips_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        boots = Boots(works=True, log="[    1.0] WARNING: drivers/nvme/x.c:1 at y\n")
        run = self.guests(boots, {"default"}, tmp_path, monkeypatch)
        with pytest.raises(NoDisk) as caught:
            run.get(self.ZNS, "test_report")
        assert "drivers/nvme/x.c" in caught.value.kernel_log
        with pytest.raises(NotServed, match="see test_report: WARNING: "):
            run.check(self.ZNS)
        assert boots.count == 1

    def test_topology_excluded_by_the_manifest_is_not_booted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run = self.guests(Boots(works=True), {"default"}, tmp_path, monkeypatch)
        plain = msgspec.structs.replace(manifest.load("nvme"), serves=Serves(zoned=False))
        monkeypatch.setattr(Plan, "manifest", lambda self, name: plain)
        with pytest.raises(NotServed) as caught:
            run.check(self.ZNS)
        assert caught.value.reason == SkipReason(
            lacking="driver",
            what="topology:zns",
            text="nvme serves no zoned namespaces, which zns has ([serves] in its manifest)",
        )
        run.check(Slot("nvme", "serial", "4k"))


@pytest.mark.parametrize(
    ("serves", "name", "message"),
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
def test_problem_names_what_a_driver_does_not_serve(
    serves: Serves, name: str, message: str
) -> None:
    problem = serves.problem(topologies.load(name))
    assert problem.startswith(message)
    assert bool(problem) == bool(message)
