# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O for the suites: fio in the foreground with its result, or in the background for a while."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockyard.images.console.result import Result
from blockyard.images.console.script import call
from blockyard.modules.disk import Disk

SCRIPTS = Path(__file__).with_name("fio.bash")
STARTED_S = 10  # fio has begun within this,
MOVES_S = 10  # requests end within this while it goes on,
ENDED_S = 10  # and it has ended within this when its disk has gone, or when it is asked to

# Options of random writes whose blocks are compared when they are read back; the first that is
# wrong ends the load.
_VERIFY: dict[str, Any] = {"rw": "randwrite", "verify": "crc32c", "verify_fatal": 1}

# Options of a load in the background that reads back what it has written, over and over again.
VERIFIED = {**_VERIFY, "size": "1M", "time_based": 0, "loops": 1000000}


@dataclass(frozen=True)
class Load:
    """What fio did, summed over its jobs."""

    read_bytes: int
    written_bytes: int
    jobs: int
    runtime_s: float  # of the longest job
    latency_min_ns: float  # of a request, from submission to completion
    latency_median_ns: float  # of the slowest job


def _argv(disk: Disk, options: dict[str, object], block_sizes: Sequence[object] = ()) -> list[str]:
    """fio's command; one job after the other for several block sizes."""
    defaults = {"filename": disk.path, "direct": 1, "thread": 1}
    words = [f"--{name}={value}" for name, value in {**defaults, **options}.items()]
    jobs = [[f"--name=bs-{size}", f"--bs={size}", "--stonewall"] for size in block_sizes]
    return ["fio", "--name=global", *words, *sum(jobs or [["--name=load"]], [])]


def fio(
    disk: Disk, timeout_s: float = 20, *, block_sizes: Sequence[object] = (), **options: object
) -> Load:
    """Runs fio on a disk to its end; fails with fio's own words when it does.

    Options are fio's (`rw`, `bs`, `size`, `ioengine`, …); direct I/O from threads by default.
    block_sizes: do it once with each of them, one after the other.
    """
    wanted = {"size": "4M", **options, "output-format": "json"}
    result = disk.console.run(shlex.join(_argv(disk, wanted, block_sizes)), timeout_s)
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


def verified(
    disk: Disk, timeout_s: float = 20, *, block_sizes: Sequence[object] = (), **options: object
) -> Load:
    """Runs `fio`: random writes (or what `options` say), each block read back and compared."""
    return fio(disk, timeout_s, block_sizes=block_sizes, **{**_VERIFY, "do_verify": 1, **options})


@contextmanager
def background_io(
    disk: Disk, *, survives: bool = True, iodepth: int = 16, numjobs: int = 1, **options: object
) -> Iterator[int]:
    """Random reads and writes (or what `options` say) for the time of the block; fio's process.

    The block begins when the first request has ended. At the end of the block more have to end than
    were under way, all of them well; or, if the disk does not survive the block, fio has to end by
    itself, with an error. In the end fio has to be gone: it waits for all of its requests.
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
    began = call(SCRIPTS, "begin_load", _stat(disk), log, STARTED_S, *_argv(disk, load))
    started = disk.console.check(began)
    pid = int(started)
    try:
        yield pid
        if survives:
            _check_it_goes_on(disk, pid, log, iodepth * numjobs)
        else:
            _check_it_failed(disk, pid, log)
    finally:
        left = _stop(disk, pid)
    assert left.exit_code == 0, "fio cannot be killed: it waits for a request that does not end"


def _check_it_goes_on(disk: Disk, pid: int, log: str, under_way: int) -> None:
    """More requests end than were under way, all of them well."""
    script = call(SCRIPTS, "load_goes_on", _stat(disk), log, pid, under_way, MOVES_S)
    told = disk.console.run(script, timeout_s=2 * MOVES_S)
    assert told.exit_code == 0, f"the I/O did not go on: {told.output}"


def _check_it_failed(disk: Disk, pid: int, log: str) -> None:
    """fio ends by itself, with an error."""
    script = call(SCRIPTS, "load_failed", log, pid, ENDED_S)
    told = disk.console.run(script, timeout_s=2 * ENDED_S)
    assert told.exit_code == 0, f"the I/O did not end with an error: {told.output}"


def _stop(disk: Disk, pid: int) -> Result:
    """Ends fio, gently first; the exit code is 0 when it is gone."""
    return disk.console.run(call(SCRIPTS, "end_load", pid, ENDED_S), timeout_s=3 * ENDED_S)


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
    values = disk.console.check(f"cat {disk.sysfs}/stat").split()
    return dict(zip(names, map(int, values), strict=False))
