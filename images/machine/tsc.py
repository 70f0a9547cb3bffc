# SPDX-License-Identifier: GPL-2.0-or-later
"""The clock rate of emulated guests: the first guest measures it, later guests get it as `lpj=`.

Under TCG the time stamp counter is that of the host, but the kernel does not know that and measures
it for each further CPU (calibrate_delay_direct() in init/calibrate.c). That takes a tenth of a
second, and on a busy host the result was seen to be wrong by half. With `lpj=` it does not measure.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from blockyard.images.machine import accelerator
from blockyard.kernel.host import store

_DETECTED = re.compile(rb"tsc: Detected (\d+)\.(\d{3}) MHz processor")


def loops_per_jiffy(accelerator_name: str, config: Mapping[str, str]) -> int:
    """The value of `lpj=` for a kernel of this configuration; 0: the kernel has to measure.

    Computed from the rate in kHz as the kernel does it for its first CPU (tsc_init()).
    """
    ticks = int(config.get("HZ", "0"))
    if accelerator_name != "tcg" or not ticks:
        return 0
    with contextlib.suppress(OSError, ValueError):
        return int(_record().read_text()) * 1000 // ticks
    return 0


def note(kernel_log: Path) -> None:
    """Keeps the rate that an emulated guest measured, until the host boots again."""
    if not (record := _record()).exists() and (match := _DETECTED.search(kernel_log.read_bytes())):
        store.keep(record, b"".join(match.groups()))


def _record() -> Path:
    return accelerator.until_next_boot("tsc")
