# SPDX-License-Identifier: GPL-2.0-or-later
"""Splats in a kernel log: what counts as one, and where its report ends (logs in data/*.log)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from blockyard.images.log.kernel_log import without_stamps
from blockyard.images.log.splats import EXCERPT_LINES, Splat, find

DATA = Path(__file__).with_name("data")


def splats_in(name: str) -> list[Splat]:
    return find((DATA / f"{name}.log").read_text())


ONE_SPLAT = {
    "null_dereference": (
        "BUG",
        "BUG: kernel NULL pointer dereference, address: 0000000000000018",
    ),
    "warning_6": (
        "WARNING",
        "WARNING: CPU: 0 PID: 131 at block/blk-mq.c:2471 blk_mq_run_hw_queue+0x1d0/0x2c0",
    ),
    "warning_7": (
        "WARNING",
        "WARNING: block/genhd.c:731 at del_gendisk+0x3a/0xc0, CPU#1: rmdir/402",
    ),
    "kasan": ("KASAN", "BUG: KASAN: slab-use-after-free in null_handle_cmd+0x3c1/0x9d0"),
    "ubsan": (
        "UBSAN",
        "UBSAN: array-index-out-of-bounds in drivers/block/null_blk/main.c:1612:26",
    ),
    "lockdep": ("lockdep", "WARNING: possible circular locking dependency detected"),
    "suspicious_rcu": ("lockdep", "WARNING: suspicious RCU usage"),
    "rcu_stall": ("RCU stall", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    "rcu_stall_other_cpu": ("RCU stall", "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
    "hung_task": ("hung task", "INFO: task fio:312 blocked for more than 122 seconds."),
    "hung_task_io_wait": (
        "hung task",
        "INFO: task fio:312 blocked in I/O wait for more than 122 seconds.",
    ),
    "soft_lockup": (
        "soft lockup",
        "watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [rmmod:233]",
    ),
    "general_protection": (
        "general protection",
        "Oops: general protection fault, probably for non-canonical address 0xdead000000000122:"
        " 0000 [#1] SMP",
    ),
    "general_protection_6": (
        "general protection",
        "general protection fault, probably for non-canonical address 0xdead000000000122:"
        " 0000 [#1] PREEMPT SMP NOPTI",
    ),
    "rust_panic": (
        "Rust panic",
        "rust_kernel: panicked at drivers/block/rnull/configfs.rs:131:30:",
    ),
    "refcount": ("memory corruption", "refcount_t: underflow; use-after-free."),
    "sleeping_in_atomic": (
        "sleeping in atomic context",
        "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:591",
    ),
    "kmemleak": (
        "kmemleak",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    ),
    "slub": ("memory corruption", "BUG kmalloc-64 (Not tainted): Right Redzone overwritten"),
    # some reports consist of a stack only
    "stack_dump": ("stack dump", "Call Trace:"),
    "panic": ("panic", "Kernel panic - not syncing: sysrq triggered crash"),
    "panic_without_trace": (
        "panic",
        "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
    ),
}


@pytest.mark.parametrize("name", ONE_SPLAT)
def test_report_is_one_splat(name: str) -> None:
    assert [(splat.kind, splat.line) for splat in splats_in(name)] == [ONE_SPLAT[name]]


@pytest.mark.parametrize("name", ["clean_7.3", "users_words"])
def test_log_without_splats(name: str) -> None:
    assert splats_in(name) == []


def test_every_log_has_a_case() -> None:
    """An unused golden log proves nothing."""
    other_logs = {"clean_7.3", "users_words", "two_splats", "caller_ids", "fault_injection"}
    assert {path.stem for path in DATA.glob("*.log")} == other_logs | set(ONE_SPLAT)


class TestExcerpt:
    @pytest.mark.parametrize(
        ("name", "last"),
        [
            ("warning_6", " </TASK>"),
            ("warning_7", " </TASK>"),
            ("null_dereference", " </TASK>"),
            ("ubsan", " </TASK>"),
            ("lockdep", " </TASK>"),
            ("rust_panic", " </TASK>"),
            ("hung_task", " </TASK>"),
            ("panic", " </TASK>"),
            ("kmemleak", "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"),
            (
                "panic_without_trace",
                "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            ),
        ],
    )
    def test_excerpt_ends_with_the_stack(self, name: str, last: str) -> None:
        (splat,) = splats_in(name)
        assert without_stamps(splat.excerpt).splitlines()[-1] == last

    def test_excerpt_is_verbatim(self) -> None:
        log = (DATA / "warning_7.log").read_text()
        (splat,) = find(log)
        assert splat.excerpt in log
        assert splat.excerpt.startswith("[   31.000233] WARNING: ")

    def test_kasan_report_includes_allocation_and_free(self) -> None:
        """KASAN's report continues after the stack, up to its closing rule."""
        (splat,) = splats_in("kasan")
        assert "Allocated by task 203" in splat.excerpt
        assert "Freed by task 219" in splat.excerpt
        assert without_stamps(splat.excerpt).splitlines()[-1] == "=" * 66

    def test_endless_report_is_cut(self) -> None:
        log = "WARNING: a.c:1 at f+0x1/0x2, CPU#0: sh/1\nCall Trace:\n" + " g+0x1/0x2\n" * 500
        (splat,) = find(log)
        assert len(splat.excerpt.splitlines()) == EXCERPT_LINES

    def test_report_may_end_with_the_log(self) -> None:
        log = "WARNING: a.c:1 at f+0x1/0x2, CPU#0: sh/1\nCall Trace:\n <TASK>\n g+0x1/0x2"
        (splat,) = find(log)
        assert splat.excerpt == log


class TestSeveral:
    def test_all_splats_of_a_log_are_found(self) -> None:
        assert [splat.kind for splat in splats_in("two_splats")] == [
            "kmemleak",
            "WARNING",
            "soft lockup",
        ]

    def test_excerpts_do_not_overlap(self) -> None:
        leak, warning, lockup = (splat.excerpt for splat in splats_in("two_splats"))
        assert "WARNING" not in leak
        assert "null_del_dev" in warning and "soft lockup" not in warning
        assert "null_blk: module unloaded" not in lockup

    def test_panic_after_an_oops_is_found(self) -> None:
        log = (DATA / "null_dereference.log").read_text() + (
            "[   12.500001] Kernel panic - not syncing: Fatal exception\n"
        )
        assert [splat.kind for splat in find(log)] == ["BUG", "panic"]


class TestStamps:
    def test_caller_ids_belong_to_the_stamp(self) -> None:
        """CONFIG_PRINTK_CALLER adds the thread or the CPU."""
        assert [(splat.kind, splat.line) for splat in splats_in("caller_ids")] == [
            ("WARNING", "WARNING: block/genhd.c:731 at del_gendisk+0x3a/0xc0, CPU#1: rmdir/402"),
            ("RCU stall", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
        ]

    def test_log_without_stamps(self) -> None:
        log = without_stamps((DATA / "warning_6.log").read_text())
        assert [splat.kind for splat in find(log)] == ["WARNING"]


def test_messages_of_user_programs_are_not_splats() -> None:
    assert find("[    1.000001] blockyard: BUG: KASAN: so says a test\n") == []
    assert find("[    1.000001][  T214] blockyard-init: WARNING: no module\n") == []


def test_endless_line_is_read_in_linear_time() -> None:
    """Raw lines from the port have no length limit, and patterns search the whole line."""
    started = time.monotonic()
    assert [splat.kind for splat in find("Oops: 0002 " + "rcu" * (1 << 20))] == ["Oops"]
    assert time.monotonic() - started < 5


def test_empty_log_has_no_splats() -> None:
    assert find("") == []


class TestInjected:
    REPORT = (DATA / "fault_injection.log").read_text()

    def test_injected_failure_is_not_a_splat(self) -> None:
        assert find(self.REPORT) == []

    def test_consequence_of_an_injected_failure_is_a_splat(self) -> None:
        (splat,) = find(self.REPORT + "[   14.3] BUG: kernel NULL pointer dereference\n")
        assert splat.kind == "BUG"

    def test_injected_failure_without_a_stack_is_two_lines(self) -> None:
        silent = "".join(self.REPORT.splitlines(keepends=True)[:3])
        oops = (DATA / "null_dereference.log").read_text()
        assert find(silent + oops) == find(oops)
        assert find(silent + "Call Trace:\n dump_stack\n </TASK>\n" + oops) == find(oops)

    def test_splat_right_after_an_injected_failure(self) -> None:
        text = "FAULT_INJECTION: forcing a failure.\nBUG: KASAN: x\nCall Trace:\n </TASK>\n"
        assert [splat.kind for splat in find(text)] == ["KASAN"]
