# SPDX-License-Identifier: GPL-2.0-or-later
"""What Blockyard costs over the bare tools, measured as ratios in one run.

Both sides of a ratio are whole processes, run in turn (ours, bare, ours, bare, …) so that a
machine whose speed drifts is fair to both; medians are compared. Nothing is judged here: the
limits are shown beside the figures.

- ``build``: configure, make and collect with an empty ccache, against make alone without ccache on
  a ready ``.config``; each run compiles a whole kernel twice.
- ``boot``: ``./inv boot --run true`` against QEMU with the same kernel and an init that powers off.
- ``warm-build``, ``test``, ``cold-test``: whole commands, with nothing to compare to; ``cold-test``
  begins with an empty cache.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from ci import output, prepare, record
from images import cpio, qemu
from images.topology import DEFAULT
from kernel import build as builder
from kernel.ccache import Objects
from kernel.choice import Choice
from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed, UserError
from kernel.host.process import run
from kernel.host.progress import note, step
from kernel.host.sandbox import BIND, Sandbox
from kernel.host.settings import PROJECT, settings
from kernel.job import Build

LIMITS = {"build": 1.03, "boot": 1.4}  # ratios
LIMITS_S = {"warm-build": 1.0, "test": 90.0, "cold-test": 1200.0}
DEFAULT_WHAT = ("warm-build", "boot")


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing measured. Times are wall seconds of whole processes."""

    name: str
    ours_s: tuple[float, ...]
    bare_s: tuple[float, ...] = ()
    limit: float  # of the ratio, or in seconds where there is nothing to compare with

    @property
    def ours(self) -> float:
        """Median of ours."""
        return statistics.median(self.ours_s)

    @property
    def bare(self) -> float | None:
        """Median of the bare tool."""
        return statistics.median(self.bare_s) if self.bare_s else None

    @property
    def figure(self) -> float:
        """What the limit is for: the ratio of the medians, or our median."""
        return self.ours / self.bare if self.bare else self.ours


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All measurements of one run."""

    host: record.Host
    kernel: str
    accelerator: str
    measurements: tuple[Measurement, ...]


def measure(choice: Choice, accel: str, what: str, runs: int) -> Report:
    """Measures; raises UserError for an unknown name."""
    if runs < 1:
        raise UserError(f"--runs {runs}: nothing would be measured")
    names = prepare.chosen("measurement", what, [*LIMITS, *LIMITS_S]) if what else DEFAULT_WHAT
    ready = prepare.ready(choice, accel)
    measurements = []
    for name in names:
        with step(f"measuring {name}"):
            measurements.append(_measure(name, choice, ready, runs))
    return Report(
        host=record.this_host(),
        kernel=choice.name,
        accelerator=ready.accelerator.name,
        measurements=tuple(measurements),
    )


def _measure(name: str, choice: Choice, ready: prepare.Ready, runs: int) -> Measurement:
    accel = ready.accelerator.name
    if name == "build":
        job = prepare.kernel_job(choice, ready.tools)
        with store.locked("kernels", job.key, f"kernel {choice.name}"):
            ours, bare = _alternate(lambda: _our_build(job), lambda: _bare_build(job), runs)
        return Measurement(name=name, ours_s=ours, bare_s=bare, limit=LIMITS[name])
    if name == "boot":
        command = ["boot", *choice.options, "--accel", accel, "--run", "true"]
        with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
            bare_boot = _bare_boot(ready, Path(folder))
            ours, bare = _alternate(lambda: _inv(command), bare_boot, runs, warm_up=True)
        return Measurement(name=name, ours_s=ours, bare_s=bare, limit=LIMITS[name])
    command = {
        "warm-build": ["build", *choice.options],
        "test": ["test", *choice.options, "--accel", accel],
        "cold-test": ["test", *choice.options],
    }[name]
    once = _cold if name == "cold-test" else _inv
    times = tuple(_timed(lambda: once(command)) for _ in range(runs))
    return Measurement(name=name, ours_s=times, limit=LIMITS_S[name])


def _alternate(
    ours: Callable[[], None], bare: Callable[[], None], runs: int, *, warm_up: bool = False
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Wall seconds of both, one after the other, `runs` times."""
    if warm_up:
        ours()
        bare()
    pairs = [(_timed(ours), _timed(bare)) for _ in range(runs)]
    return tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)


def _timed(work: Callable[[], None]) -> float:
    begun = time.monotonic()
    work()
    return round(time.monotonic() - begun, 3)


def _inv(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Runs ./inv as a user would; raises Failed when it fails."""
    done = subprocess.run(
        [str(PROJECT / "inv"), *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(f"./inv {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def _cold(arguments: Sequence[str]) -> None:
    place = settings().cache_dir.parent  # /tmp may be in memory
    with tempfile.TemporaryDirectory(prefix="blockyard-cold-", dir=place) as folder:
        try:
            _inv(arguments, {"BLOCKYARD_CACHE": folder})
        finally:
            store.remove(Path(folder) / "sources")
            store.remove(Path(folder) / "roots")


def _our_build(job: Build) -> None:
    """What a build adds up to, from an empty output tree and ccache to an entry of the cache."""
    store.remove(job.out)
    empty = replace(job, objects=Objects(f"perf-{job.key}") if job.objects else None)
    path = store.directory("perf") / job.key
    store.remove(path)
    path.mkdir()
    try:
        builder.make_kernel(empty, path)
    finally:
        store.remove(store.directory("ccache") / f"perf-{job.key}")
    store.remove(path)


def _bare_build(job: Build) -> None:
    """make with the same arguments on the configuration that ours came to."""
    config = (job.out / ".config").read_bytes()
    store.remove(job.out)
    job.out.mkdir()
    (job.out / ".config").write_bytes(config)
    job.make("bzImage", "modules", doing="the bare make failed")


def _bare_boot(ready: prepare.Ready, folder: Path) -> Callable[[], None]:
    initramfs = folder / "initramfs"
    initramfs.write_bytes(cpio.archive([cpio.File("init", _bare_init(ready.tools), 0o755)]))
    sandbox = Sandbox(
        ready.tools.root,
        read_only={"kernel": ready.kernel.image, "initrd": initramfs},
        writable={"run": folder},
        devices=["/dev/kvm"] if ready.accelerator.name == "kvm" else [],
    )
    argv = sandbox.argv(
        [
            *qemu.machine_arguments(DEFAULT, ready.accelerator.name),
            *("-append", " ".join(qemu.COMMAND_LINE)),
            *qemu.kernel_log_arguments(),
        ]
    )

    def boot() -> None:
        run(argv, log=folder / "qemu.log", doing="booting bare QEMU", timeout_s=300)

    return boot


def _bare_init(tools: ToolRoot) -> bytes:
    source = PROJECT / "ci" / "bare"
    key = store.digest("bare", (source / "init.c").read_text())

    def make(path: Path) -> None:
        sandbox = Sandbox(tools.root, read_only={"src": source}, writable={"out": path})
        argv = ["gcc", "-O2", "-static", "-o", f"{BIND}/out/init", f"{BIND}/src/init.c"]
        run(sandbox.argv(argv), log=path / "log", doing="compiling the bare init")

    return (store.get("images", key, "the bare init", make) / "init").read_bytes()


def show(report: Report, *, as_json: bool) -> None:
    """Prints the report: JSON, or a table."""
    if as_json:
        print(output.as_json(report))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("measured", "runs", "ours", "bare", "figure", "limit"):
        table.add_column(name, justify="left" if name == "measured" else "right")
    for one in report.measurements:
        unit = "" if one.bare else " s"
        table.add_row(
            one.name,
            str(len(one.ours_s)),
            f"{one.ours:.2f} s",
            f"{one.bare:.2f} s" if one.bare else "-",
            f"{one.figure:.2f}{unit}",
            f"{one.limit:.2f}{unit}",
        )
    Console().print(table)
    note(f"medians of wall time; kernel {report.kernel}, {report.accelerator}")
