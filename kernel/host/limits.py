# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits for programs in the sandbox: time, memory, processes, disk.

The sandbox runs makefiles of third-party trees and modules; a simple mistake in one can loop
forever or fill the disk. The limits are far above what a kernel needs; a setting raises each.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from blockyard.kernel.host.settings import settings

MODULE_S = 1800  # a module compiles in seconds, on a loaded host in minutes
CONFIGURE_S = 1800  # make olddefconfig takes 7 s
KERNEL_CPU_S = 8 * 3600  # our configuration takes 20 minutes of CPU time, allyesconfig 5 hours
KERNEL_LEAST_S = 3600  # however many processors there are


@dataclass(frozen=True)
class Limits:
    """Upper limits of a program; None: not limited."""

    time_s: float | None = None
    log_mib: int | None = 1024  # what it prints
    output_mib: int | None = None  # total size of the folders that it writes to
    file_mib: int | None = 16 << 10  # one file, holes included
    memory_mib: int | None = None
    processes: int | None = None
    tmpfs_mib: int = 4096  # /tmp in the sandbox, which is in memory

    def within(self, time_s: float) -> Limits:
        """The same limits with `time_s`, or with the setting build_timeout_s if the user set it."""
        return replace(self, time_s=settings().build_timeout_s or time_s)


def build_limits() -> Limits:
    """Limits from the settings for programs of a third-party tree or module; no time limit."""
    chosen = settings()
    return Limits(
        log_mib=chosen.build_log_mib,
        output_mib=int(chosen.build_output_gb * 1000),
        file_mib=int(chosen.build_output_gb * 1000),
        memory_mib=int(chosen.build_memory_gb * 1000) or _memory_mib(),
        processes=chosen.build_processes,
    )


def kernel_time_s(jobs: int) -> float:
    """The time limit in seconds for compiling a kernel: shorter with more processors."""
    return max(KERNEL_LEAST_S, KERNEL_CPU_S / min(jobs, os.cpu_count() or 1))


def _memory_mib() -> int:
    """Nine tenths of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 >> 20
