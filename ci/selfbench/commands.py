# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands, run as a user would; they have a limit and no reference.

- ``warm-build``: ``./inv build`` with nothing to do.
- ``test``: the default ``./inv test``; ``cold-test``: the same with an empty cache.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from blockyard.ci.selfbench.timing import Context, elapsed
from blockyard.ci.selfbench.values import Measurement
from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import GRACE_S, reaped, start
from blockyard.kernel.host.settings import PROJECT, settings

WARM_BUILD_S = 1.0
TEST_S = 90.0
COLD_TEST_S = 1200.0


def warm_build(context: Context) -> Measurement:
    """Wall time of ``./inv build`` with everything in the cache."""
    command = ["build", *context.spec.options]
    return _measured("warm-build", WARM_BUILD_S, context, lambda: inv(command))


def test(context: Context) -> Measurement:
    """Wall time of ``./inv test`` with everything in the cache."""
    accel = context.ready.accelerator.name
    command = ["test", *context.spec.options, "--accel", accel]
    return _measured("test", TEST_S, context, lambda: inv(command))


def cold_test(context: Context) -> Measurement:
    """Wall time of ``./inv test`` with an empty cache."""
    command = ["test", *context.spec.options]
    return _measured("cold-test", COLD_TEST_S, context, lambda: _cold(command))


def _measured(name: str, limit_s: float, context: Context, work: Callable[[], None]) -> Measurement:
    times = tuple(elapsed(work).wall_s for _ in range(context.runs))
    return Measurement(name=name, unit="s", ours=times, limit=limit_s)


def inv(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Runs ./inv as a user would; raises Failure when its exit code is not 0."""
    process = start(
        [str(PROJECT / "inv"), *arguments],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    with reaped(process, GRACE_S):
        _, stderr = process.communicate()
    if process.returncode:
        raise Failure(f"./inv {' '.join(arguments)} failed:\n{stderr[-2000:].decode()}")


def _cold(arguments: Sequence[str]) -> None:
    parent = settings().cache_dir.parent  # /tmp may be in memory
    with tempfile.TemporaryDirectory(prefix="blockyard-cold-", dir=parent) as folder:
        try:
            inv(arguments, {"BLOCKYARD_CACHE": folder})
        finally:
            store.remove(Path(folder) / "sources")
            store.remove(Path(folder) / "roots")
