# SPDX-License-Identifier: GPL-2.0-or-later
"""Examines processes through /proc: their children, whether they ended, their sockets."""

from __future__ import annotations

import time
from pathlib import Path

PATIENCE_S = 60.0  # for a process to end on a busy host

LISTEN = "0A"  # a socket's state in /proc/net/tcp (include/net/tcp_states.h)


def _parent(pid: str) -> int | None:
    """The parent of a process; None if the process has ended."""
    try:
        state, parent = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(parent)


def descendants(pid: int) -> set[int]:
    """The children of a process, their children, and so on."""
    parents = {
        int(path.name): parent
        for path in Path("/proc").glob("[0-9]*")
        if (parent := _parent(path.name)) is not None
    }
    found: set[int] = set()
    level = {pid}
    while level:
        level = {child for child, parent in parents.items() if parent in level}
        found |= level
    return found


def named(pids: set[int], name: str) -> set[int]:
    """The processes whose program's name begins with `name`."""
    found = set()
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/comm").read_text().startswith(name[:15]):
                found.add(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def left(pids: set[int]) -> set[int]:
    """The processes that have not ended after PATIENCE_S."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        pids = {pid for pid in pids if _parent(str(pid)) is not None}
        if not pids:
            return set()
        time.sleep(0.05)
    return pids


def listening(pids: set[int]) -> set[tuple[str, int]]:
    """Address and port of the TCP sockets that these processes listen on; see proc_net_tcp.rst."""
    inodes = {
        target.removeprefix("socket:[").rstrip("]")
        for pid in pids
        for link in Path(f"/proc/{pid}/fd").iterdir()
        if (target := _target(link)).startswith("socket:[")
    }
    found = set()
    for pid in pids:
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN and fields[9] in inodes:
                    address, _, port = fields[1].partition(":")
                    found.add((address, int(port, 16)))
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:
        return ""
