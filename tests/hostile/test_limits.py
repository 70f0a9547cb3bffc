# SPDX-License-Identifier: GPL-2.0-or-later
"""Makefiles that use up resources: each is stopped, and the error names the limit."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from blockyard.kernel.host import cgroup, untrusted
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.limits import Limits
from blockyard.kernel.host.process import run
from blockyard.kernel.host.sandbox import Sandbox

SMALL = Limits(
    time_s=60, log_mib=8, output_mib=64, file_mib=32, memory_mib=256, processes=64, tmpfs_mib=16
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "make.log"


def make(tools: ToolRoot, log: Path, recipe: str, limits: Limits = SMALL) -> None:
    """Run a makefile with one recipe as a build does."""
    out = log.parent / "out"
    out.mkdir(exist_ok=True)
    (out / "Makefile").write_text(f"all:\n\t{recipe}\n")
    sandbox = Sandbox(tools.root, writable={"out": out}, supervised=True, limits=limits)
    argv = sandbox.argv(["make", "-C", "/mnt/out"])
    run(argv, log=log, doing="the module", limits=limits, outputs=[out])


def refused(tools: ToolRoot, log: Path, recipe: str, limits: Limits = SMALL) -> str:
    """Run a recipe that must fail; return the error message."""
    with pytest.raises(Failure) as caught:
        make(tools, log, recipe, limits)
    print(f"{recipe[:60]:60} {str(caught.value).splitlines()[0]} / {caught.value.hint}")
    assert len(str(caught.value)) < 4000
    return str(caught.value)


def test_endless_build_is_stopped(tools: ToolRoot, log: Path) -> None:
    message = refused(tools, log, "trap '' TERM INT; sleep 600", replace(SMALL, time_s=1))
    assert "the module: no end after 1 s" in message
    assert "BLOCKYARD_BUILD_TIMEOUT_S" in message


@pytest.mark.quick
def test_flood_of_output_is_stopped(tools: ToolRoot, log: Path) -> None:
    started = time.monotonic()
    # raise the limit of a single file, or the kernel stops it first
    message = refused(tools, log, "yes AAAAAAAA", replace(SMALL, file_mib=100_000))
    assert "the module: it printed more than 8 MiB" in message
    assert "BLOCKYARD_BUILD_LOG_MIB" in message
    assert log.stat().st_size <= 9 << 20
    assert time.monotonic() - started < 60


@pytest.mark.quick
def test_huge_sparse_file_is_refused(tools: ToolRoot, log: Path) -> None:
    message = refused(tools, log, "truncate -s 15T c_null.ko")
    assert "it wrote a file of more than 32 MiB" in message
    assert "BLOCKYARD_BUILD_OUTPUT_GB" in message


def test_total_output_is_limited(tools: ToolRoot, log: Path) -> None:
    message = refused(tools, log, "for i in 1 2 3 4; do head -c 20M /dev/zero >$$i; done")
    assert "the module: it wrote more than 64 MiB to" in message


def test_tmp_is_limited(tools: ToolRoot, log: Path) -> None:
    message = refused(tools, log, "head -c 20M /dev/zero >/tmp/x")
    assert "No space left" in message
    assert "its /tmp holds 16 MiB" in message
    assert "No space left" in refused(tools, log, "head -c 20M /dev/zero >/dev/shm/x")


def test_fork_bomb_is_stopped(tools: ToolRoot, log: Path) -> None:
    """A fork bomb ends in an error, and no process is left."""
    limited = os.geteuid() != 0 or _grouped()
    if not limited:
        pytest.skip("limiting root's processes needs a control group, which cannot be created here")
    message = refused(
        tools, log, "python3 -c 'import os\nwhile True: os.fork()'".replace("\n", ";")
    )
    assert "processes" in message or "ended with" in message
    bomb = "for i in `seq 200`; do sleep 100 & done; wait"
    message = refused(tools, log, bomb)
    assert "it started more than 64 processes; raise the limit with build_processes" in message


def _grouped() -> bool:
    with cgroup.group(256, 64) as group:
        return bool(group.folders)


@pytest.mark.quick
def test_memory_of_one_process_is_limited(tools: ToolRoot, log: Path) -> None:
    message = refused(tools, log, "python3 -c 'bytearray(10**9)'")
    assert "MemoryError" in message
    assert "it took more than 256 MiB of memory; raise the limit with build_memory_gb" in message


def test_memory_of_many_processes_is_limited(tools: ToolRoot, log: Path) -> None:
    if not _grouped():
        pytest.skip("a control group cannot be created here")
    (log.parent / "out").mkdir()
    (log.parent / "out" / "allocate.py").write_text(
        "import os, sys, time\n"
        "children = [os.fork() or (bytearray(10**8), time.sleep(5), os._exit(0)) "
        "for _ in range(6)]\n"
        "sys.exit(any(os.wait()[1] for _ in children))\n"
    )
    message = refused(tools, log, "python3 allocate.py")
    assert "it took more than 256 MiB of memory" in message


def test_background_processes_are_killed(tools: ToolRoot, log: Path) -> None:
    mark = f"{os.getpid()}{time.time_ns()}"
    make(tools, log, f"for i in 1 2 3; do setsid sh -c 'trap \"\" TERM; sleep 1000' {mark} & done")
    assert not _running(mark)


def _running(mark: str) -> list[str]:
    """PIDs of processes with the mark among their arguments."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "cmdline").read_text(errors="replace"):
                pids.append(folder.name)
        except OSError:
            continue
    return pids


@pytest.mark.quick
def test_odd_names_and_links_are_not_followed(tools: ToolRoot, log: Path) -> None:
    """Names with newlines and escapes, links out of the folder, pipes, 3000 nested folders."""
    script = (
        'import os; os.chdir("/mnt/out"); os.symlink("/etc/shadow", "c_null.ko");'
        'os.symlink("/", "root"); os.mkfifo("pipe"); open("a\\nb\\x1b[31m", "w");'
        '[(os.mkdir("d"), os.chdir("d")) for _ in range(3000)]'
    )
    (log.parent / "out").mkdir()
    (log.parent / "out" / "leave.py").write_text(script)
    make(tools, log, "python3 leave.py")
    out = log.parent / "out"
    for name in ("c_null.ko", "root/etc/passwd", "pipe"):
        with pytest.raises(Failure):
            untrusted.copy(out, name, log.parent / "copied")
    assert not (log.parent / "copied").exists()
    _remove_deep(out / "d")


def _remove_deep(folder: Path) -> None:
    """Remove 3000 nested folders, which are too deep for pytest's cleanup."""
    import subprocess

    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.mark.quick
def test_cpu_time_is_not_read_from_the_log(tools: ToolRoot, log: Path) -> None:
    """A makefile can print false numbers and leave work to other processes; both do not count."""
    used: list[float] = []
    out = log.parent / "out"
    out.mkdir()
    limits = SMALL
    sandbox = Sandbox(tools.root, writable={"out": out}, supervised=True, limits=limits)
    work = "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done"
    script = f"echo 'blockyard: cpu 999 999'; setsid sh -c '{work}' & wait"
    argv = sandbox.argv(["sh", "-c", script])
    run(argv, log=log, doing="x", limits=limits, used=used.append)
    assert 0.1 < used[0] < 60


def test_refused_connection_does_not_blame_the_mirror(tools: ToolRoot, log: Path) -> None:
    message = refused(tools, log, "echo 'curl: (7) Connection refused'; exit 1")
    assert "mirror" not in message
    assert "builds have no network, on purpose" in message
