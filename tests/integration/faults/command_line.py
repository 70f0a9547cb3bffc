# SPDX-License-Identifier: GPL-2.0-or-later
"""Whole commands: many guests at once, and commands that are interrupted or killed."""

from __future__ import annotations

import fcntl
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from blockyard.images.machine.scratch import SCRATCH
from blockyard.kernel.host import store
from blockyard.kernel.host.settings import PROJECT
from blockyard.tests.integration.conftest import KERNEL
from blockyard.tests.integration.faults.fault import Guests, fault
from blockyard.tests.integration.processes import descendants, left


def inv(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(PROJECT / "inv"), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def alone() -> Iterator[None]:
    """Run faults that look at the guests of all commands one after the other."""
    with open(store.directory("locks") / "faults", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@fault("20 guests are started and stopped at once", "all answer", within_s=120)
def twenty_guests(guests: Guests) -> None:
    with alone(), ExitStack() as stack:
        runs = [inv("boot", "--kernel", KERNEL, "--run", f"echo $(({n} * 7))") for n in range(20)]
        for run in runs:
            stack.callback(run.kill)
        answers = [run.communicate(timeout=1200) for run in runs]
    assert answers == [(f"{n * 7}\n", "") for n in range(20)]


def scratch_files() -> set[Path]:
    folder = store.directory("guests")
    return {path for pattern in SCRATCH for path in folder.glob(f"*/{pattern}")}


def interrupted(number: signal.Signals) -> None:
    before = scratch_files()
    for moment in [random.uniform(0.05, 4) for _ in range(10)]:
        run = inv("boot", "--kernel", KERNEL, "--run", "sleep 600")
        time.sleep(moment)
        processes = descendants(run.pid)
        run.send_signal(number)
        _, errors = run.communicate(timeout=300)
        assert run.returncode != 0
        assert "Traceback" not in errors
        assert left(processes) == set()
    # the next command removes what the last one left
    finished = inv("boot", "--kernel", KERNEL, "--run", "echo well")
    assert finished.communicate(timeout=300)[0] == "well\n"
    assert scratch_files() <= before


@fault("Blockyard is interrupted at ten random moments", "no QEMU and no file is left")
def sigint(guests: Guests) -> None:
    with alone():
        interrupted(signal.SIGINT)


@fault(
    "Blockyard is killed at ten random moments",
    "no QEMU is left; the next start removes the files",
)
def sigkill(guests: Guests) -> None:
    with alone():
        interrupted(signal.SIGKILL)
