# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a growing kernel log."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from blockyard.images.errors import QemuDied
from blockyard.images.log.kernel_log import KernelLog, without_stamps

PANIC = b"[    2.701210] Kernel panic - not syncing: sysrq triggered crash\r\n"


@pytest.fixture
def log(tmp_path: Path) -> KernelLog:
    (tmp_path / "kernel.log").touch()
    return KernelLog(tmp_path / "kernel.log")


def grow(log: KernelLog, data: bytes) -> None:
    with log.path.open("ab") as file:
        file.write(data)


class TestText:
    def test_text_is_sliced_by_bytes(self, log: KernelLog) -> None:
        grow(log, b"one\r\n")
        start = log.size
        grow(log, b"two\r\n")
        end = log.size
        grow(log, b"three\r\n")
        assert log.text(start, end) == "two\n"
        assert log.text(start) == "two\nthree\n"
        assert log.text() == "one\ntwo\nthree\n"

    def test_invalid_utf8_is_replaced(self, log: KernelLog) -> None:
        grow(log, b"\xff\n")
        assert log.text() == "\ufffd\n"

    def test_missing_log_is_empty(self, tmp_path: Path) -> None:
        log = KernelLog(tmp_path / "none")
        assert (log.size, log.text(), log.tail()) == (0, "", "")
        assert not log.panicked()

    def test_tail_is_the_last_lines(self, log: KernelLog) -> None:
        grow(log, b"".join(b"line %d\r\n" % n for n in range(10_000)))
        assert log.tail(2) == "line 9998\nline 9999"


class TestPanicked:
    def test_log_without_a_panic(self, log: KernelLog) -> None:
        grow(log, b"[    0.000000] Kernel command line: panic=-1\r\n")
        assert not log.panicked()

    def test_panic_is_reported_once(self, log: KernelLog) -> None:
        grow(log, PANIC)
        assert log.panicked()
        assert not log.panicked()

    @pytest.mark.parametrize("at", range(1, len(PANIC), 7))
    def test_panic_that_arrives_in_two_pieces(self, log: KernelLog, at: int) -> None:
        grow(log, b"before\r\n" + PANIC[:at])
        first = log.panicked()
        grow(log, PANIC[at:])
        assert first != log.panicked()


def healthy() -> None:
    """A watch that reports no problem."""


class TestWaitFor:
    def test_offset_after_the_mark_is_returned(self, log: KernelLog) -> None:
        grow(log, b"[    1.0] blockyard: begin x 0a0b\r\nrest")
        assert log.wait_for("begin x 0a0b", 0, 1, healthy) == log.size - len("rest")

    def test_mark_before_the_start_is_ignored(self, log: KernelLog) -> None:
        grow(log, b"mark\n")
        assert log.wait_for("mark", log.size, 0.01, healthy) is None

    def test_incomplete_line_is_waited_for(self, log: KernelLog) -> None:
        grow(log, b"older\nmark")
        assert log.wait_for("mark", 0, 0.01, healthy) is None
        timer = threading.Timer(0.05, grow, [log, b" with a tail\n"])
        timer.start()
        assert log.wait_for("mark", 0, 60, healthy) == len(b"older\nmark with a tail\n")
        timer.join()

    def test_exception_of_the_watch_ends_the_wait(self, log: KernelLog) -> None:
        def watch() -> None:
            raise QemuDied("QEMU ended")

        with pytest.raises(QemuDied):
            log.wait_for("mark", 0, 600, watch)


class TestAskedFor:
    @pytest.mark.parametrize(
        ("start", "end", "left"),
        [
            (0, 8, "012367"),
            (0, 3, "012"),
            (0, 5, "0123"),
            (4, 6, ""),
            (5, 9, "678"),
            (5, 14, "6789CD"),
            (7, 9, "78"),
        ],
    )
    def test_requested_ranges_are_left_out(
        self, log: KernelLog, start: int, end: int, left: str
    ) -> None:
        grow(log, b"0123456789ABCDEF")
        log.mark_requested(4, 6)
        log.mark_requested(10, 12)
        assert log.unrequested(start, end) == left


class TestTimestamps:
    @pytest.mark.parametrize(
        "stamp", ["[    0.000000] ", "[12345.678901] ", "[    1.5][    T1] ", "[    1.5][   C12] "]
    )
    def test_timestamps_are_removed(self, stamp: str) -> None:
        assert without_stamps(f"{stamp}one\n{stamp} two") == "one\n two"

    def test_other_brackets_stay(self) -> None:
        assert without_stamps("[ cut here ]\n[1] x") == "[ cut here ]\n[1] x"


class TestDamage:
    """A guest that cannot read its root or its modules."""

    @pytest.mark.parametrize(
        "line",
        [
            "erofs (device vda): bogus i_mode (0) @ nid 7241469",
            "vda: rw=8388608, sector=84384, nr_sectors = 8 limit=20480",
            "I/O error, dev vdb, sector 0 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
        ],
    )
    def test_damage_is_reported_once(self, tmp_path: Path, line: str) -> None:
        log = KernelLog(tmp_path / "kernel.log")
        log.path.write_text("[    0.1] Linux version 7.3\n")
        assert log.damage() == ""
        with open(log.path, "a") as file:
            file.write(f"[    1.2] {line}\n[    1.3] more\n")
        assert line.startswith(log.damage().rstrip())
        assert log.damage() == ""

    @pytest.mark.parametrize(
        "line",
        [
            "erofs (device vda): mounted with root inode @ nid 36.",
            "I/O error, dev nvme0n1, sector 0 op 0x0:(READ)",
            "I/O error, dev vdc, sector 0 op 0x0:(READ)",
            "virtio_blk virtio1: [vda] 518088 512-byte logical blocks",
        ],
    )
    def test_errors_of_disks_under_test_are_ignored(self, tmp_path: Path, line: str) -> None:
        log = KernelLog(tmp_path / "kernel.log")
        log.path.write_text(f"[    1.2] {line}\n")
        assert log.damage() == ""


def test_since_begin_returns_the_last_lines_of_a_test(tmp_path: Path) -> None:
    log = KernelLog(tmp_path / "kernel.log")
    log.path.write_text("boot\n")
    assert log.since_begin() == "boot"
    log.begin()
    with open(log.path, "a") as file:
        file.write("".join(f"line {number}\n" for number in range(50)))
    start = log.size
    with open(log.path, "a") as file:
        file.write("sysrq: Show Blocked State\n")
    log.mark_requested(start, log.size)
    with open(log.path, "a") as file:
        file.write("after\n")
    assert log.since_begin(3).splitlines() == ["line 48", "line 49", "after"]
    assert "boot" not in log.since_begin(1000)
