# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a program failed, when that is about the machine or a limit rather than the work."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

from kernel.host.limits import Limits
from kernel.host.watch import raised_by

FULL = "the disk is full: free some space, or set BLOCKYARD_CACHE to another disk"
FULL_BYTES = 1 << 20  # less than this is left on a disk that is full
_REFUSED = r"Connection refused|Could not connect|Unable to connect"
_TOO_MANY = r"fork: .*Resource temporarily unavailable|fork: retry"
_TOO_LARGE = r"File size limit exceeded|File too large|Error 153"
_MEMORY = r"Cannot allocate memory|LLVM ERROR: out of memory|memory exhausted|bad_alloc|MemoryError"


def known(text: str, code: int, log: Path, limits: Limits, exceeded: str, offline: bool) -> str:
    """A hint from the end of a log, and from what its disk and its control group say.

    code: its exit code. exceeded: the limit of the group that was hit. offline: there was no
    network on purpose, so that nothing it says of the network is about the user's.
    """
    if "No space left on device" in text or _is_full(log):
        inside = f"; or it was /tmp in the sandbox, which holds {limits.tmpfs_mib} MiB"
        return FULL + (inside if offline and not _is_full(log) else "")
    if exceeded == "processes" or (limits.processes and re.search(_TOO_MANY, text)):
        return f"it started more than {limits.processes} processes; " + raised_by("build_processes")
    if exceeded == "memory" or (limits.memory_mib and re.search(_MEMORY, text)):
        return f"it took more than {limits.memory_mib} MiB of memory; " + raised_by(
            "build_memory_gb"
        )
    too_large = code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ) or re.search(_TOO_LARGE, text)
    if limits.file_mib and too_large:
        return f"it wrote a file of more than {limits.file_mib} MiB; " + raised_by(
            "build_output_gb"
        )
    if "setting up uid map: Permission denied" in text or "No permissions to create" in text:
        return "user namespaces are not allowed here: see Troubleshooting in README.md"
    return _network(text, offline)


def _network(text: str, offline: bool) -> str:
    if "Temporary failure resolving" in text or "Could not resolve" in text:
        cause = "no network, or no name service: check it, or set BLOCKYARD_MIRROR"
    elif re.search(_REFUSED, text):
        cause = "the Debian mirror does not answer: check the network, or set BLOCKYARD_MIRROR"
    else:
        return ""
    return "builds have no network, on purpose: nothing can be fetched in one" if offline else cause


def _is_full(log: Path) -> bool:
    try:
        return shutil.disk_usage(log.parent).free < FULL_BYTES
    except OSError:
        return False
