# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage-guided fuzzing of the readers of untrusted text, with atheris (libFuzzer).

Not part of ./inv check: atheris supports few versions of CPython, and fuzzing needs hours. In an
environment with atheris and requirements.lock:

    python -m blockyard.tests.properties.fuzz log -max_total_time=3600

Options after the name go to libFuzzer. An input that raises or takes over two seconds is written to
the current folder, and the exit code is not 0.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import atheris

LONGEST_S = 2.0
DATA = Path(__file__).parents[1] / "unit" / "data"

with atheris.instrument_imports(include=["images", "kernel"]):
    from blockyard.images.log import splats
    from blockyard.images.log.kernel_log import KernelLog
    from blockyard.kernel.host.errors import BlockyardError
    from blockyard.kernel.sources import thread
    from blockyard.kernel.sources.items import items_of
    from blockyard.kernel.sources.mail import mails


def log(data: bytes) -> None:
    """The scan of a kernel log for splats."""
    splats.find(data.decode(errors="replace"))


def shared_log(data: bytes) -> None:
    """A kernel log that shares its port with a console."""
    path = Path("/dev/shm/blockyard-fuzz.log")
    path.write_bytes(data)
    kernel_log = KernelLog(path, shared=True)
    kernel_log.tail()
    kernel_log.panicked()
    splats.find(kernel_log.unrequested(0, kernel_log.size))


def series(data: bytes) -> None:
    """A file with mails or diffs."""
    thread.series(items_of(mails(data, "fuzz"), "fuzz"), "fuzz", alone=True)


TARGETS: dict[str, tuple[Callable[[bytes], None], str]] = {
    "log": (log, "*.log"),
    "shared-log": (shared_log, "*.log"),
    "series": (series, "series/*.mbox"),
}


def bounded(read: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Wrap a reader: it may raise a BlockyardError, but not take over LONGEST_S."""

    def read_once(data: bytes) -> None:
        started = time.process_time()
        with contextlib.suppress(BlockyardError):
            read(data)
        seconds = time.process_time() - started
        if seconds > LONGEST_S:
            raise TimeoutError(f"{len(data)} bytes took {seconds:.1f} s")

    return read_once


def main() -> None:
    """Fuzz the reader that the first argument names; seeds are the samples of the unit tests."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        raise SystemExit(f"give a reader: {', '.join(TARGETS)}")
    read, pattern = TARGETS[sys.argv[1]]
    seeds = Path(f"/dev/shm/blockyard-fuzz-{sys.argv[1]}")
    seeds.mkdir(exist_ok=True)
    for path in DATA.rglob(pattern):
        if path.is_file():
            (seeds / path.name).write_bytes(path.read_bytes())
    atheris.Setup([sys.argv[0], "-max_len=65536", *sys.argv[2:], str(seeds)], bounded(read))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
