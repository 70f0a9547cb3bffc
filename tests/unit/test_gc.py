# SPDX-License-Identifier: GPL-2.0-or-later
"""Garbage collection of the cache: what is dropped first, and what is in use."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockyard.kernel.host import gc, store
from blockyard.kernel.host.gc import DAY_S, collect
from blockyard.kernel.host.settings import PROJECT

MIB = 1 << 20


def make(kind: str, number: int, *, age_days: float = 0.0, mib: int = 1) -> Path:
    """An entry that is not in use; `number` makes its key."""
    path = store.directory(kind) / f"{number:016x}"
    path.mkdir()
    (path / "data").write_bytes(os.urandom(mib * MIB))
    used_s = time.time() - age_days * DAY_S
    os.utime(path, (used_s, used_s))
    return path


def names(cache: Path) -> set[str]:
    """Kind and number of all entries and leftovers."""
    return {
        f"{path.parent.name} {path.name.lstrip('0')}"
        for kind in cache.iterdir()
        if kind.name not in gc.NO_ENTRIES
        for path in kind.iterdir()
    }


@contextmanager
def other_process(code: str) -> Iterator[None]:
    """A process that runs `code` and lives until the end of the block."""
    script = f"from blockyard.kernel.host import store\n{code}\nprint('ready', flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield
    process.kill()
    process.wait(60)


class TestOrder:
    def test_output_trees_go_first_then_sources_then_kernels(self, cache: Path) -> None:
        for kind in ("images", "kernels", "sources", "builds"):
            make(kind, 1, mib=2)
        for limit, left in (
            (7 * MIB, {"images 1", "kernels 1", "sources 1"}),
            (5 * MIB, {"images 1", "kernels 1"}),
            (0, set()),
        ):
            collect(max_age_s=None, max_size=limit)
            assert names(cache) == left

    def test_oldest_entry_of_a_kind_goes_first(self, cache: Path) -> None:
        for number, age_days in ((1, 5), (2, 9), (3, 1)):
            make("sources", number, age_days=age_days)
        freed = collect(max_age_s=None, max_size=2 * MIB + MIB // 2)
        assert names(cache) == {"sources 1", "sources 3"}
        assert [entry.key for entry in freed.dropped] == [f"{2:016x}"]

    def test_use_counts_and_peek_does_not(self, cache: Path) -> None:
        for number in (1, 2, 3):
            make("sources", number, age_days=number)
        with other_process(f"store.use('sources', '{3:016x}')"):
            assert store.peek("sources", f"{2:016x}") is not None
        collect(max_age_s=None, max_size=2 * MIB + MIB // 2)
        assert names(cache) == {"sources 1", "sources 3"}

    def test_old_entries_go_regardless_of_kind_and_size(self, cache: Path) -> None:
        make("kernels", 1, age_days=31)
        make("builds", 1, age_days=29)
        collect(max_age_s=30 * DAY_S, max_size=None)
        assert names(cache) == {"builds 1"}

    def test_entries_dropped_by_age_count_towards_the_size(self, cache: Path) -> None:
        make("kernels", 1, age_days=31, mib=4)
        make("builds", 1, age_days=29)
        freed = collect(max_age_s=30 * DAY_S, max_size=2 * MIB)
        assert names(cache) == {"builds 1"}
        assert freed.size < 2 * MIB

    def test_cache_within_its_limits_is_left_alone(self, cache: Path) -> None:
        make("builds", 1, age_days=300)
        freed = collect(max_age_s=None, max_size=10 * MIB)
        assert names(cache) == {"builds 1"}
        assert (freed.dropped, freed.in_use) == ((), ())

    def test_only_entries_are_dropped(self, cache: Path) -> None:
        for kind in ("logs", "guests", "resolved", "accelerator"):
            (store.directory(kind) / "file").write_text("x")
        (store.directory("guests") / "0123456789abcdef").mkdir()
        (store.directory("sources") / "mine").mkdir()
        collect(max_age_s=0, max_size=0)
        assert (cache / "guests" / "0123456789abcdef").is_dir()
        assert (cache / "sources" / "mine").is_dir()
        for kind in ("logs", "guests", "resolved", "accelerator"):
            assert (cache / kind / "file").exists()

    def test_missing_cache(self, cache: Path) -> None:
        assert collect(max_age_s=0, max_size=0).dropped == ()


class TestDryRun:
    def test_dry_run_reports_the_same_and_drops_nothing(self, cache: Path) -> None:
        for number in (1, 2, 3):
            make("sources", number, age_days=number)
        (store.directory("builds") / f".making-{1:016x}").mkdir()
        with other_process(f"store.use('sources', '{2:016x}')"):
            before = names(cache)
            planned = collect(max_age_s=None, max_size=0, dry_run=True)
            assert names(cache) == before
            assert collect(max_age_s=None, max_size=0) == planned

    def test_dry_run_does_not_count_as_a_use(self, cache: Path) -> None:
        make("sources", 1, age_days=5)
        make("builds", 1, age_days=5)
        collect(max_age_s=None, max_size=0, dry_run=True)
        ages = [(time.time() - entry.used_s) / DAY_S for entry in gc.entries()]
        assert ages == pytest.approx([5, 5], abs=0.01)


class TestInUse:
    def test_entry_used_by_another_process_stays(self, cache: Path) -> None:
        make("sources", 1, age_days=9)
        make("sources", 2, age_days=1)
        with other_process(f"store.get('sources', '{1:016x}', 'a thing', None)"):
            freed = collect(max_age_s=0, max_size=0)
            assert names(cache) == {"sources 1"}
            assert [entry.key for entry in freed.in_use] == [f"{1:016x}"]
        collect(max_age_s=0, max_size=0)
        assert names(cache) == set()

    def test_entry_used_by_this_process_stays(self, cache: Path) -> None:
        path = store.get("sources", f"{1:016x}", "a thing", lambda path: None)
        freed = collect(max_age_s=0, max_size=0)
        assert path.is_dir()
        assert len(freed.in_use) == 1

    def test_locked_output_tree_stays(self, cache: Path) -> None:
        make("builds", 1, age_days=9)
        code = f"lock = store.locked('builds', '{1:016x}', 'a build'); lock.__enter__()"
        with other_process(code):
            collect(max_age_s=0, max_size=0)
            assert names(cache) == {"builds 1"}

    def test_next_entry_goes_instead_of_one_in_use(self, cache: Path) -> None:
        """The size of an entry in use still counts."""
        for number in (1, 2, 3):
            make("sources", number, age_days=10 - number)
        with other_process(f"store.use('sources', '{2:016x}')"):
            # without this, it would be the last to go
            os.utime(store.use_file("sources", f"{2:016x}"), (0, 0))
            collect(max_age_s=None, max_size=2 * MIB + MIB // 2)
        assert names(cache) == {"sources 2", "sources 3"}

    def test_dropped_entry_is_made_again(self, cache: Path) -> None:
        key = f"{1:016x}"

        def first(path: Path) -> None:
            (path / "a").write_text("something")

        store.get("sources", key, "a thing", first)
        store.forget()  # as if the process that used it had ended
        collect(max_age_s=None, max_size=0)
        assert store.peek("sources", key) is None
        path = store.get("sources", key, "a thing", lambda path: (path / "b").touch())
        assert [file.name for file in path.iterdir() if file.name[0] != "."] == ["b"]


class TestLeftovers:
    @pytest.mark.parametrize("prefix", [".making-", ".gone-"])
    def test_leftover_of_a_dead_process_is_removed(self, cache: Path, prefix: str) -> None:
        left = store.directory("kernels") / f"{prefix}{1:016x}"
        left.mkdir()
        freed = collect(max_age_s=None, max_size=None)
        assert not left.exists()
        assert freed.leftovers == (left,)

    def test_leftover_of_a_running_process_stays(self, cache: Path) -> None:
        code = (
            "import contextlib\n"
            f"lock = store.locked('kernels', '{1:016x}', 'a kernel'); lock.__enter__()"
        )
        left = store.directory("kernels") / f".making-{1:016x}"
        left.mkdir()
        with other_process(code):
            assert collect(max_age_s=0, max_size=0).leftovers == ()
            assert left.exists()


class TestSize:
    def test_immutable_entry_is_measured_once(self, cache: Path) -> None:
        path = make("kernels", 1, mib=3)
        (first,) = gc.entries()
        assert first.size == pytest.approx(3 * MIB, rel=0.1)
        (path / "data").unlink()  # a new measurement would see this
        assert [entry.size for entry in gc.entries()] == [first.size]

    def test_output_tree_is_measured_each_time(self, cache: Path) -> None:
        path = make("builds", 1, mib=3)
        assert gc.entries()[0].size > 2 * MIB
        (path / "data").unlink()
        assert gc.entries()[0].size < MIB

    def test_links_are_not_followed(self, cache: Path, tmp_path: Path) -> None:
        (tmp_path / "large").write_bytes(os.urandom(3 * MIB))
        path = make("builds", 1, mib=1)
        (path / "link").symlink_to(tmp_path / "large")
        (path / "folder").symlink_to(tmp_path)
        assert gc.entries()[0].size < 2 * MIB


class TestBudget:
    def test_ccache_counts_and_is_left_alone(self, cache: Path) -> None:
        make("builds", 1, mib=2)
        objects = store.directory("ccache/debian") / "object"
        objects.write_bytes(os.urandom(3 * MIB))
        freed = collect(max_age_s=None, max_size=4 * MIB)
        assert names(cache) == set()
        assert objects.exists()
        assert freed.size == pytest.approx(3 * MIB, rel=0.1)

    def test_budget_is_a_setting_and_drops_are_reported(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("BLOCKYARD_CACHE_GB", "0.003")
        make("builds", 1, mib=2)
        make("sources", 1, mib=2)
        gc.keep_to_budget()
        assert names(cache) == {"sources 1"}
        message = capsys.readouterr().err
        assert "cache_gb (0.003 GB): dropped 1 of builds" in message

    def test_nothing_is_printed_within_the_budget(
        self, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make("builds", 1)
        gc.keep_to_budget()
        assert capsys.readouterr().err == ""
