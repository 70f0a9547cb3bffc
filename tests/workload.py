# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O for the suites: fio in the foreground with its result, or in the background for a while."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from modules.disk import Disk

BACKGROUND_LOG = "/tmp/background-io"
STARTED_S = 10


@dataclass(frozen=True)
class Load:
    """What fio did, summed over its jobs."""

    read_bytes: int
    written_bytes: int
    jobs: int
    runtime_s: float  # of the longest job
    latency_min_ns: float  # of a request, from submission to completion
    latency_median_ns: float  # of the slowest job


def _command(disk: Disk, options: dict[str, object], block_sizes: Sequence[object] = ()) -> str:
    """fio's command line; one job after the other for several block sizes."""
    defaults = {"filename": disk.path, "direct": 1, "thread": 1}
    words = [f"--{name}={value}" for name, value in {**defaults, **options}.items()]
    jobs = [[f"--name=bs-{size}", f"--bs={size}", "--stonewall"] for size in block_sizes]
    return shlex.join(["fio", "--name=global", *words, *sum(jobs or [["--name=load"]], [])])


def fio(
    disk: Disk, timeout_s: float = 20, *, block_sizes: Sequence[object] = (), **options: object
) -> Load:
    """Runs fio on a disk to its end; fails with fio's own words when it does.

    Options are fio's (`rw`, `bs`, `size`, `ioengine`, …); direct I/O from threads by default.
    block_sizes: do it once with each of them, one after the other.
    """
    wanted = {"size": "4M", **options, "output-format": "json"}
    result = disk.console.run(_command(disk, wanted, block_sizes), timeout_s)
    assert result.exit_code == 0, f"fio failed: {result.output}"
    # a warning may stand before or behind the JSON
    report, _ = json.JSONDecoder().raw_decode(result.output, result.output.index("{"))
    jobs = report["jobs"]
    assert all(job["error"] == 0 for job in jobs), f"fio met errors: {result.output}"
    directions = [job[how] for job in jobs for how in ("read", "write") if job[how]["io_bytes"]]
    return Load(
        read_bytes=sum(job["read"]["io_bytes"] for job in jobs),
        written_bytes=sum(job["write"]["io_bytes"] for job in jobs),
        jobs=len(jobs),
        runtime_s=max(job["job_runtime"] for job in jobs) / 1000,
        latency_min_ns=min(one["lat_ns"]["min"] for one in directions),
        latency_median_ns=max(
            one["clat_ns"].get("percentile", {}).get("50.000000", 0) for one in directions
        ),
    )


@contextmanager
def background_io(disk: Disk, *, survives: bool = True, **options: object) -> Iterator[None]:
    """Random reads and writes (or what `options` say) for the time of the block.

    The block begins when I/O is seen in the disk's statistics. At its end the I/O has to be still
    going on without an error, unless the disk does not survive the block.
    """
    command = _command(
        disk,
        {
            "rw": "randrw",
            "ioengine": "libaio",
            "iodepth": 16,
            "size": "16M",
            "time_based": 1,
            "runtime": 3600,
            **options,
        },
    )
    log = BACKGROUND_LOG
    disk.console.check(
        f"""
        before=$(cat {disk.sysfs}/stat)
        setsid {command} > {log}.log 2>&1 < /dev/null &
        echo $! > {log}.pid
        for try in {{1..{STARTED_S * 20}}}; do
            [ "$(cat {disk.sysfs}/stat)" != "$before" ] && exit 0
            kill -0 $! 2> /dev/null || break
            sleep 0.05
        done
        cat {log}.log
        exit 1"""
    )
    try:
        yield
        if survives:
            told = disk.console.run(f"kill -0 $(cat {log}.pid) && ! grep -i error {log}.log")
            assert told.exit_code == 0, f"the I/O did not go on: {told.output}"
    finally:
        # fio ends by itself when its disk goes; the descriptors it holds have to be gone too
        disk.console.run(
            f"""
            pid=$(cat {log}.pid)
            kill -INT $pid 2> /dev/null
            for try in {{1..100}}; do
                kill -0 $pid 2> /dev/null || exit 0
                sleep 0.05
            done
            kill -KILL $pid""",
            timeout_s=20,
        )


def statistics(disk: Disk) -> dict[str, int]:
    """The disk's counters (Documentation/ABI/stable/sysfs-block, "stat")."""
    names = (
        "reads",
        "read_merges",
        "read_sectors",
        "read_ms",
        "writes",
        "write_merges",
        "write_sectors",
        "write_ms",
        "in_flight",
        "io_ms",
        "queue_ms",
        "discards",
        "discard_merges",
        "discard_sectors",
        "discard_ms",
        "flushes",
        "flush_ms",
    )
    values = disk.console.check(f"cat {disk.sysfs}/stat").split()
    return dict(zip(names, map(int, values), strict=False))
