# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock of guests' deadlines, on a /proc of the tests' own making."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.images.machine import pace
from blockyard.images.machine.pace import STOPPED_S, Pace

STARTER, QEMU = 10, 12


class Host:
    """A host with one QEMU that has two threads, and a clock."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.now = 1000.0
        self._times = {thread: [0, 0] for thread in ("12", "13")}
        for pid, name, parent in ((STARTER, "bwrap", 1), (11, "bwrap", 10), (QEMU, pace.NAME, 11)):
            (proc / f"{pid}" / "task").mkdir(parents=True)
            (proc / f"{pid}" / "comm").write_text(f"{name}\n")
            self.state(pid, name, "S", parent)
        self.disk_wait(waits=False)
        self.passes(0)

    def disk_wait(self, *, waits: bool) -> None:
        """Whether the second thread of QEMU waits for a disk."""
        thread = self.proc / f"{QEMU}" / "task" / "13"
        thread.mkdir(exist_ok=True)
        (thread / "stat").write_text(f"13 (CPU 0/TCG) {'D' if waits else 'S'} 11 1 1")

    def state(self, pid: int, name: str, state: str, parent: int) -> None:
        (self.proc / f"{pid}" / "stat").write_text(f"{pid} ({name}) {state} {parent} 1 1")

    def qemu(self, state: str) -> None:
        self.state(QEMU, pace.NAME, state, 11)

    def passes(self, seconds: float, *, ran: float = 0.0, waited: float = 0.0) -> None:
        """Time passes in which the first thread of QEMU runs, and waits for a processor."""
        self.now += seconds
        self._times["12"][0] += int(ran * 1e9)
        self._times["12"][1] += int(waited * 1e9)
        for thread, (run, wait) in self._times.items():
            folder = self.proc / f"{QEMU}" / "task" / thread
            folder.mkdir(exist_ok=True)
            (folder / "schedstat").write_text(f"{run} {wait} 17\n")


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(pace, "PROC", tmp_path)
    return Host(tmp_path)


def passed(host: Host, clock: Pace, times: int, seconds: float, **what: float) -> float:
    """What a guest's clock makes of the same again and again."""
    before = clock.now()
    for _ in range(times):
        host.passes(seconds, **what)
        clock.now()
    return clock.now() - before


@pytest.fixture
def clock(host: Host) -> Pace:
    return Pace(STARTER, lambda: host.now)


class TestLoad:
    def test_on_an_idle_host_it_is_the_hosts_clock(self, host: Host, clock: Pace) -> None:
        assert passed(host, clock, 50, 0.2, ran=0.2) == pytest.approx(10)

    def test_what_qemu_waits_for_a_processor_does_not_count(self, host: Host, clock: Pace) -> None:
        assert passed(host, clock, 50, 0.2, ran=0.05, waited=0.15) == pytest.approx(2.5)

    def test_a_guest_that_wants_no_processor_is_not_stretched(
        self, host: Host, clock: Pace
    ) -> None:
        assert passed(host, clock, 50, 0.2) == pytest.approx(10)

    def test_it_follows_the_host(self, host: Host, clock: Pace) -> None:
        assert passed(host, clock, 10, 0.2, waited=0.15) == pytest.approx(0.5)
        assert passed(host, clock, 10, 0.2) == pytest.approx(2)

    def test_it_never_stands_still_for_load(self, host: Host, clock: Pace) -> None:
        assert passed(host, clock, 120, 0.2, waited=5) == pytest.approx(1)

    def test_a_host_that_says_nothing_is_taken_for_idle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace, "PROC", tmp_path / "none")
        times = iter([1000.0, 1000.5, 1001.0])
        clock = Pace(STARTER, lambda: next(times))
        assert [clock.now(), clock.now()] == [0.5, 1.0]
        assert clock.cpu_s() is None


class TestStopped:
    def test_a_stop_of_some_seconds_does_not_count(self, host: Host, clock: Pace) -> None:
        host.qemu("T")
        assert passed(host, clock, 75, 0.2) == pytest.approx(0)
        host.qemu("S")
        assert passed(host, clock, 10, 0.2) == pytest.approx(2)

    def test_a_stop_for_good_does(self, host: Host, clock: Pace) -> None:
        host.qemu("T")
        assert passed(host, clock, 150, 0.2) == pytest.approx(30 - STOPPED_S, abs=0.5)

    def test_a_stop_of_this_process_does_not(self, host: Host, clock: Pace) -> None:
        assert passed(host, clock, 1, 600) == pytest.approx(1)


class TestDisksOfTheHost:
    def test_what_a_thread_waits_for_them(self, host: Host, clock: Pace) -> None:
        assert passed(host, clock, 10, 0.2) == pytest.approx(2)
        assert clock.stalled_s() == 0
        host.disk_wait(waits=True)
        assert passed(host, clock, 50, 0.2) == pytest.approx(10)
        host.disk_wait(waits=False)
        passed(host, clock, 10, 0.2)
        assert clock.stalled_s() == pytest.approx(10)

    def test_a_host_that_says_nothing(self, host: Host, clock: Pace) -> None:
        (host.proc / f"{QEMU}" / "task" / "13" / "stat").unlink()
        passed(host, clock, 10, 0.2)
        assert clock.stalled_s() == 0


def test_what_qemu_computed(host: Host, clock: Pace) -> None:
    host.passes(2, ran=1.5)
    assert clock.cpu_s() == pytest.approx(1.5)
