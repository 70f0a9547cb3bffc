# SPDX-License-Identifier: GPL-2.0-or-later
"""The rate of an emulated guest's clock: one guest measures it, those after it are told.

Under TCG the time stamp counter is the host's. Nothing says so to the kernel, which measures it
once more for each further CPU: a tenth of a second, with a result that was seen to be wrong by half
on a loaded host (calibrate_delay_direct() in init/calibrate.c). With `lpj=` it does not.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from blockyard.images.machine import accelerator
from blockyard.kernel.host import store

_DETECTED = re.compile(rb"tsc: Detected (\d+)\.(\d{3}) MHz processor")


def loops_per_jiffy(runs_it: str, config: Mapping[str, str]) -> int:
    """What to tell a kernel of this configuration; 0: it is to measure by itself.

    runs_it: the accelerator's name. Computed from the rate in kHz as the kernel does it for its
    first CPU (tsc_init()).
    """
    ticks = int(config.get("HZ", "0"))
    if runs_it != "tcg" or not ticks:
        return 0
    with contextlib.suppress(OSError, ValueError):
        return int(_record().read_text()) * 1000 // ticks
    return 0


def note(kernel_log: Path) -> None:
    """Keeps what an emulated guest found, for as long as the host does not boot."""
    if not (record := _record()).exists() and (found := _DETECTED.search(kernel_log.read_bytes())):
        store.keep(record, b"".join(found.groups()))


def _record() -> Path:
    return accelerator.until_next_boot("tsc")
