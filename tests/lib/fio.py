# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O for the suites: fio in the foreground with its result, or in the background for a while."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from blockyard.images.console.result import Result
from blockyard.modules.disk import Disk

STARTED_S = 10  # fio has begun within this,
MOVES_S = 10  # requests end within this while it goes on,
ENDED_S = 10  # and it has ended within this when its disk has gone, or when it is asked to

# What fio says at once of a request that failed, and in the end of a job that met an error.
_ERROR = "io_u error|err= ?[1-9]"

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
    started = disk.console.check(
        f"""
        {_progress(disk)}
        count
        setsid {_command(disk, load)} > {log} 2>&1 < /dev/null &
        goes_on $! 0 {STARTED_S} >&2 || {{ cat {log} >&2; exit 1; }}
        echo $!"""
    )
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
    told = disk.console.run(
        f"""
        {_progress(disk)}
        count
        goes_on {pid} {under_way} {MOVES_S} && ! grep -E '{_ERROR}' {log}""",
        timeout_s=2 * MOVES_S,
    )
    assert told.exit_code == 0, f"the I/O did not go on: {told.output}"


def _check_it_failed(disk: Disk, pid: int, log: str) -> None:
    """fio ends by itself, with an error."""
    told = disk.console.run(
        f"{_gone(pid)} && grep -Eq '{_ERROR}' {log} || {{ cat {log}; exit 1; }}",
        timeout_s=2 * ENDED_S,
    )
    assert told.exit_code == 0, f"the I/O did not end with an error: {told.output}"


def _stop(disk: Disk, pid: int) -> Result:
    """Ends fio, gently first; the exit code is 0 when it is gone."""
    return disk.console.run(
        f"""
        kill -INT {pid} 2> /dev/null
        {_gone(pid)} && exit
        kill -KILL {pid}
        {_gone(pid)}""",
        timeout_s=3 * ENDED_S,
    )


def _progress(disk: Disk) -> str:
    """Shell functions: `count` the requests that have ended, and whether fio `goes_on`.

    goes_on PID REQUESTS SECONDS: whether more than so many end within so many seconds.
    """
    return f"""
        count() {{
            read -r reads _ _ _ writes _ < {disk.sysfs}/stat
            ended=$((reads + writes))
        }}
        goes_on() {{
            local before=$ended try
            for ((try = 0; try < 20 * $3; try++)); do
                count
                [ $((ended - before)) -gt $2 ] && return
                kill -0 $1 || return
                sleep 0.05
            done
            echo "$((ended - before)) requests have ended in $3 s"
            return 1
        }}
"""


def _gone(pid: int) -> str:
    """A shell condition: the process ends."""
    return f"""{{
            for try in {{1..{ENDED_S * 20}}}; do
                kill -0 {pid} 2> /dev/null || break
                sleep 0.05
            done
            ! kill -0 {pid} 2> /dev/null
        }}"""


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
