# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O for the suites: fio in the foreground with its result, or in the background for a while."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from blockyard.images.console.result import Result
from blockyard.images.console.script import call
from blockyard.modules.disk import Disk

SCRIPTS = Path(__file__).with_name("fio.bash")
STARTED_S = 10  # limit for the first request of fio to complete,
MOVES_S = 10  # for the requests in flight to complete,
ENDED_S = 10  # and for fio to exit after its disk has gone or after a signal


class Verify(TypedDict, total=False):
    """Options of a load whose blocks are compared when they are read back."""

    rw: str
    verify: str
    verify_fatal: int  # the first wrong block ends the load
    size: str
    time_based: int
    loops: int


_VERIFY: Verify = {"rw": "randwrite", "verify": "crc32c", "verify_fatal": 1}

# Options for background_io(): write and verify, repeatedly.
VERIFIED: Verify = {**_VERIFY, "size": "1M", "time_based": 0, "loops": 1000000}


@dataclass(frozen=True)
class Load:
    """Result of a run of fio, summed over its jobs."""

    read_bytes: int
    written_bytes: int
    jobs: int
    runtime_s: float  # of the longest job
    latency_min_ns: float  # from submission to completion of a request
    latency_median_ns: float  # of the slowest job


def _argv(disk: Disk, options: dict[str, object], block_sizes: Sequence[object] = ()) -> list[str]:
    """fio's argv; with several block sizes, one job after the other."""
    defaults = {"filename": disk.path, "direct": 1, "thread": 1}
    arguments = [f"--{name}={value}" for name, value in {**defaults, **options}.items()]
    jobs = [[f"--name=bs-{size}", f"--bs={size}", "--stonewall"] for size in block_sizes]
    return ["fio", "--name=global", *arguments, *sum(jobs or [["--name=load"]], [])]


def fio(
    disk: Disk, timeout_s: float = 20, *, block_sizes: Sequence[object] = (), **options: object
) -> Load:
    """Run fio on a disk and return its result; fail with fio's output if fio fails.

    `options` are fio's (`rw`, `bs`, `size`, `ioengine`, …); by default 4 MiB of direct I/O from
    threads. With `block_sizes`, fio runs one job after the other, one for each size.
    """
    return _fio(disk, timeout_s, block_sizes, options)


def _fio(
    disk: Disk, timeout_s: float, block_sizes: Sequence[object], options: Mapping[str, object]
) -> Load:
    with_report = {"size": "4M", **options, "output-format": "json"}
    result = disk.console.run(shlex.join(_argv(disk, with_report, block_sizes)), timeout_s)
    assert result.exit_code == 0, f"fio failed: {result.output}"
    # there may be warnings before or after the JSON
    report, _ = json.JSONDecoder().raw_decode(result.output, result.output.index("{"))
    jobs = report["jobs"]
    assert all(job["error"] == 0 for job in jobs), f"fio reported errors: {result.output}"
    directions = [job[key] for job in jobs for key in ("read", "write") if job[key]["io_bytes"]]
    return Load(
        read_bytes=sum(job["read"]["io_bytes"] for job in jobs),
        written_bytes=sum(job["write"]["io_bytes"] for job in jobs),
        jobs=len(jobs),
        runtime_s=max(job["job_runtime"] for job in jobs) / 1000,
        latency_min_ns=min(direction["lat_ns"]["min"] for direction in directions),
        latency_median_ns=max(
            direction["clat_ns"].get("percentile", {}).get("50.000000", 0)
            for direction in directions
        ),
    )


def verified(
    disk: Disk, timeout_s: float = 20, *, block_sizes: Sequence[object] = (), **options: object
) -> Load:
    """Runs `fio`: random writes (or what `options` say), each block read back and compared."""
    return _fio(disk, timeout_s, block_sizes, {**_VERIFY, "do_verify": 1, **options})


@contextmanager
def background_io(
    disk: Disk, *, survives: bool = True, iodepth: int = 16, numjobs: int = 1, **options: object
) -> Iterator[int]:
    """Run random I/O (or what `options` say) for the time of the block; yield fio's PID.

    The block starts after the first request has completed. At its end more requests must complete
    than were in flight, without errors. If the disk does not survive the block (`survives=False`),
    fio must exit by itself with an error. Fails if fio cannot be stopped: then a request hangs.
    """
    load: dict[str, object] = {
        "rw": "randrw",
        "ioengine": "libaio",
        "iodepth": iodepth,
        "numjobs": numjobs,
        "size": "16M",
        "time_based": 1,
        "runtime": 3600,
        **options,
    }
    log = f"/tmp/background-{disk.name}"
    start = call(SCRIPTS, "start_load", _stat(disk), log, STARTED_S, *_argv(disk, load))
    pid = int(disk.console.check(start))
    try:
        yield pid
        if survives:
            _check_it_continues(disk, pid, log, iodepth * numjobs)
        else:
            _check_it_failed(disk, pid, log)
    finally:
        stopped = _stop(disk, pid)
    assert stopped.exit_code == 0, "fio cannot be killed: it waits for a request that does not end"


def _check_it_continues(disk: Disk, pid: int, log: str, in_flight: int) -> None:
    script = call(SCRIPTS, "load_continues", _stat(disk), log, pid, in_flight, MOVES_S)
    result = disk.console.run(script, timeout_s=2 * MOVES_S)
    assert result.exit_code == 0, f"the I/O did not go on: {result.output}"


def _check_it_failed(disk: Disk, pid: int, log: str) -> None:
    script = call(SCRIPTS, "load_failed", log, pid, ENDED_S)
    result = disk.console.run(script, timeout_s=2 * ENDED_S)
    assert result.exit_code == 0, f"the I/O did not end with an error: {result.output}"


def _stop(disk: Disk, pid: int) -> Result:
    """Stop fio; the exit code is 0 if it is gone."""
    return disk.console.run(call(SCRIPTS, "stop_load", pid, ENDED_S), timeout_s=3 * ENDED_S)


def _stat(disk: Disk) -> str:
    return f"{disk.sysfs}/stat"


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
    values = disk.console.check(f"cat {_stat(disk)}").split()
    return dict(zip(names, map(int, values), strict=False))
