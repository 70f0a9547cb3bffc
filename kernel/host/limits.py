# SPDX-License-Identifier: GPL-2.0-or-later
"""How much a program in the sandbox may take: time, memory, processes, disk.

Makefiles of foreign trees and modules run there, and a mistake is enough for one that never ends or
fills the disk. The limits are far above what a kernel needs; each has a setting that raises it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from blockyard.kernel.host.settings import settings

MODULE_S = 1800  # a module compiles in seconds, on a loaded host in minutes
CONFIGURE_S = 1800  # make olddefconfig takes 7 s
KERNEL_CPU_S = 8 * 3600  # a kernel of ours takes 20 minutes of one processor, allyesconfig 5 hours
KERNEL_LEAST_S = 3600


@dataclass(frozen=True)
class Limits:
    """Upper limits; None: not limited."""

    time_s: float | None = None
    log_mib: int | None = 1024  # what it prints
    output_mib: int | None = None  # all that stands in the folders that it writes to
    file_mib: int | None = 16 << 10  # one file, holes included
    memory_mib: int | None = None
    processes: int | None = None
    tmpfs_mib: int = 4096  # /tmp inside, which is memory

    def within(self, time_s: float) -> Limits:
        """The same with another time, unless the user set one."""
        return replace(self, time_s=settings().build_timeout_s or time_s)


def build_limits() -> Limits:
    """For programs of a foreign tree or module; without the time."""
    chosen = settings()
    return Limits(
        log_mib=chosen.build_log_mib,
        output_mib=int(chosen.build_output_gb * 1000),
        file_mib=int(chosen.build_output_gb * 1000),
        memory_mib=int(chosen.build_memory_gb * 1000) or _memory_mib(),
        processes=chosen.build_processes,
    )


def kernel_time_s(jobs: int) -> float:
    """How long the compile of a kernel may take: it scales with the processors at hand."""
    return max(KERNEL_LEAST_S, KERNEL_CPU_S / min(jobs, os.cpu_count() or 1))


def _memory_mib() -> int:
    """Nine tenths of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 >> 20
