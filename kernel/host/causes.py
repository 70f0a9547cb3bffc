# SPDX-License-Identifier: GPL-2.0-or-later
"""Why a program failed, when the machine or a limit is to blame and not the work itself."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

from blockyard.kernel.host.limits import Limits
from blockyard.kernel.host.watch import raised_by

FULL = "the disk is full: free some space, or set BLOCKYARD_CACHE to another disk"
MEMORY = "memory may have run out: try fewer jobs (BLOCKYARD_JOBS=1)"
FULL_BYTES = 1 << 20  # a disk with less free space counts as full
_NO_SPACE = ("No space left on device", "Disk quota exceeded")
_NO_MEMORY = re.compile(
    r"Cannot allocate memory|LLVM ERROR: out of memory|memory exhausted|\bbad_alloc\b|^MemoryError"
    r"|out of memory allocating|memory allocation of \d+ bytes failed"
)
# SIGKILL: from the kernel when the machine is out of memory, or from a person
_KILLED = re.compile(
    r"(?:make(?:\[\d+\])?: \*\*\* \[.*\] |[^\s:]*sh: .*)?\bKilled\b"
    r"|.*(?:unable to execute command: Killed|Killed signal terminated program)"
    r"|.*(?:\(signal: 9|signal: 9, SIGKILL)"
)
_REFUSED = r"Connection refused|Could not connect|Unable to connect"
_TOO_MANY = r"fork: .*Resource temporarily unavailable|fork: retry"
_TOO_LARGE = r"File size limit exceeded|File too large|Error 153"


def says_no_space(line: str) -> bool:
    """Whether a line of a log reports a full file system."""
    return any(phrase in line for phrase in _NO_SPACE)


def says_no_memory(line: str) -> bool:
    """Whether a line of a log may mean that memory has run out."""
    return bool(_NO_MEMORY.search(line) or _KILLED.match(line))


def advice(
    text: str,
    code: int,
    log: Path,
    limits: Limits,
    exceeded: str,
    *,
    offline: bool,
    hint: str = "",
) -> str:
    """What to do about a failure; empty when the cause is unknown.

    First come an exceeded limit and a full disk, then the caller's `hint` about the work, then
    problems of the machine that the log shows.

    text: lines of the log: its errors and its end. code: the exit code. exceeded: the limit of the
    control group that was hit. offline: the program had no network, so a network error in the log
    says nothing about the user's network.
    """
    return _limit(text, code, log, limits, exceeded, offline) or hint or _machine(text, offline)


def _limit(text: str, code: int, log: Path, limits: Limits, exceeded: str, offline: bool) -> str:
    lines = [line.strip() for line in text.splitlines()]
    if _is_full(log):
        return FULL
    if any(map(says_no_space, lines)):
        return _no_space_in(limits) if offline else FULL
    if exceeded == "processes" or (limits.processes and re.search(_TOO_MANY, text)):
        return f"it started more than {limits.processes} processes; " + raised_by("build_processes")
    if exceeded == "memory" or (limits.memory_mib and any(map(_NO_MEMORY.search, lines))):
        return f"it took more than {limits.memory_mib} MiB of memory; " + raised_by(
            "build_memory_gb"
        )
    too_large = code in (-signal.SIGXFSZ, 128 + signal.SIGXFSZ) or re.search(_TOO_LARGE, text)
    if limits.file_mib and too_large:
        return f"it wrote a file of more than {limits.file_mib} MiB; " + raised_by(
            "build_output_gb"
        )
    return MEMORY if any(map(says_no_memory, lines)) else ""


def _no_space_in(limits: Limits) -> str:
    return (
        f"no space is left in the sandbox: its /tmp holds {limits.tmpfs_mib} MiB, "
        "all else is on the disk of the cache (BLOCKYARD_CACHE)"
    )


def _machine(text: str, offline: bool) -> str:
    if "setting up uid map: Permission denied" in text or "No permissions to create" in text:
        return "user namespaces are not allowed here: see Troubleshooting in README.md"
    return _network(text, offline)


def _network(text: str, offline: bool) -> str:
    if "Temporary failure resolving" in text or "Could not resolve" in text:
        cause = "host name not resolved: check the network and DNS, or set BLOCKYARD_MIRROR"
    elif re.search(_REFUSED, text):
        cause = "the Debian mirror does not answer: check the network, or set BLOCKYARD_MIRROR"
    else:
        return ""
    return "builds have no network, on purpose: they cannot fetch anything" if offline else cause


def _is_full(log: Path) -> bool:
    try:
        return shutil.disk_usage(log.parent).free < FULL_BYTES
    except OSError:
        return False
