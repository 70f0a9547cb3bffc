# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock for guest deadlines, on a fake /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.images.machine import pace
from blockyard.images.machine.pace import STOPPED_S, Pace

STARTER, QEMU = 10, 12


class Host:
    """A fake host: a clock, and one QEMU with two threads."""

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
        """Set whether the second thread of QEMU waits for a disk (state D)."""
        thread = self.proc / f"{QEMU}" / "task" / "13"
        thread.mkdir(exist_ok=True)
        (thread / "stat").write_text(f"13 (CPU 0/TCG) {'D' if waits else 'S'} 11 1 1")

    def state(self, pid: int, name: str, state: str, parent: int) -> None:
        (self.proc / f"{pid}" / "stat").write_text(f"{pid} ({name}) {state} {parent} 1 1")

    def qemu(self, state: str) -> None:
        self.state(QEMU, pace.NAME, state, 11)

    def passes(self, seconds: float, *, ran: float = 0.0, waited: float = 0.0) -> None:
        """Advance the clock; QEMU's first thread ran and waited for a CPU that long."""
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


def elapsed(host: Host, clock: Pace, times: int, seconds: float, **load: float) -> float:
    """Return the guest seconds that `times` steps of `seconds` on the host take."""
    before = clock.now()
    for _ in range(times):
        host.passes(seconds, **load)
        clock.now()
    return clock.now() - before


@pytest.fixture
def clock(host: Host) -> Pace:
    return Pace(STARTER, lambda: host.now)


class TestLoad:
    def test_idle_host_runs_at_host_time(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 50, 0.2, ran=0.2) == pytest.approx(10)

    def test_time_waiting_for_a_cpu_does_not_count(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 50, 0.2, ran=0.05, waited=0.15) == pytest.approx(2.5)

    def test_idle_guest_runs_at_host_time(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 50, 0.2) == pytest.approx(10)

    def test_clock_follows_changes_in_load(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 10, 0.2, waited=0.15) == pytest.approx(0.5)
        assert elapsed(host, clock, 10, 0.2) == pytest.approx(2)

    def test_load_never_stops_the_clock(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 120, 0.2, waited=5) == pytest.approx(1)

    def test_host_without_proc_counts_as_idle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pace, "PROC", tmp_path / "none")
        times = iter([1000.0, 1000.5, 1001.0])
        clock = Pace(STARTER, lambda: next(times))
        assert [clock.now(), clock.now()] == [0.5, 1.0]
        assert clock.cpu_s() is None


class TestStopped:
    def test_short_stop_does_not_count(self, host: Host, clock: Pace) -> None:
        host.qemu("T")
        assert elapsed(host, clock, 75, 0.2) == pytest.approx(0)
        host.qemu("S")
        assert elapsed(host, clock, 10, 0.2) == pytest.approx(2)

    def test_permanent_stop_counts(self, host: Host, clock: Pace) -> None:
        host.qemu("T")
        assert elapsed(host, clock, 150, 0.2) == pytest.approx(30 - STOPPED_S, abs=0.5)

    def test_stop_of_this_process_does_not_count(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 1, 600) == pytest.approx(1)


class TestHostDisks:
    def test_disk_wait_of_a_thread_is_stalled_time(self, host: Host, clock: Pace) -> None:
        assert elapsed(host, clock, 10, 0.2) == pytest.approx(2)
        assert clock.stalled_s() == 0
        host.disk_wait(waits=True)
        assert elapsed(host, clock, 50, 0.2) == pytest.approx(10)
        host.disk_wait(waits=False)
        elapsed(host, clock, 10, 0.2)
        assert clock.stalled_s() == pytest.approx(10)

    def test_host_without_thread_state_has_no_stalled_time(self, host: Host, clock: Pace) -> None:
        (host.proc / f"{QEMU}" / "task" / "13" / "stat").unlink()
        elapsed(host, clock, 10, 0.2)
        assert clock.stalled_s() == 0


def test_cpu_time_of_qemu(host: Host, clock: Pace) -> None:
    host.passes(2, ran=1.5)
    assert clock.cpu_s() == pytest.approx(1.5)
