# SPDX-License-Identifier: GPL-2.0-or-later
"""``labgrid``: output over our serial console against labgrid's ShellDriver, on the same guest.

labgrid has a shell on a terminal of the guest, over a virtio port like ours, and reads as it reads
from a QEMU that it has started itself (``labgrid_side.py``). Not over hvc0, where QEMU drops what
is not read in time: labgrid takes 4 KiB per 10 ms. It searches all that has come for its marker
with each piece, so its time grows with the square of the size: what it does with one MiB is
compared, and ours is shown for sixteen besides (``labgrid-large``). ``-cpu``: of the process that
reads.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from blockyard.ci.selfbench import consoles, peers
from blockyard.ci.selfbench.timing import Context, Elapsed, elapsed
from blockyard.ci.selfbench.values import Measurement
from blockyard.images.machine import qemu
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import reaped, start, tail
from blockyard.kernel.host.sandbox import BIND, Sandbox

NAME = "labgrid"
SIDE = peers.HERE / "labgrid_side.py"
SIZE_MIB = 1
LARGE_MIB = consoles.OUTPUT_MIB
TIMEOUT_S = 300.0  # for labgrid's start, login and one MiB


def labgrid(context: Context) -> tuple[Measurement, ...]:
    """Throughput in MiB/s and CPU seconds per MiB, of us and of labgrid."""
    peer = peers.installed(NAME, context.ready.tools)
    ours, theirs, large = [], [], []
    with consoles.guest(context) as booted, _shell(booted) as shell:
        consoles.print_file(booted.serial, LARGE_MIB)
        for _ in range(context.runs):
            ours.append(elapsed(lambda: consoles.read_output(booted.serial, SIZE_MIB)))
            theirs.append(_labgrid(booted, shell, peer))
            large.append(elapsed(lambda: consoles.read_output(booted.serial, LARGE_MIB)))
    against = f"{NAME} {peers.version(NAME)}, ShellDriver; both {SIZE_MIB} MiB"
    return (
        Measurement(
            name=NAME,
            unit="MiB/s",
            ours=rates(SIZE_MIB, ours),
            reference=rates(SIZE_MIB, theirs),
            against=against,
            ratio=True,
        ),
        Measurement(
            name=f"{NAME}-cpu",
            unit="s/MiB",
            ours=cpu(SIZE_MIB, ours),
            reference=cpu(SIZE_MIB, theirs),
            against=against,
            ratio=True,
        ),
        Measurement(name=f"{NAME}-large", unit="MiB/s", ours=rates(LARGE_MIB, large)),
        Measurement(name=f"{NAME}-large-cpu", unit="s/MiB", ours=cpu(LARGE_MIB, large)),
    )


def rates(size_mib: int, times: Sequence[Elapsed]) -> tuple[float, ...]:
    """Throughputs in MiB/s, from times of `size_mib` each."""
    return tuple(round(size_mib / time.wall_s, 3) for time in times)


def cpu(size_mib: int, times: Sequence[Elapsed]) -> tuple[float, ...]:
    """CPU seconds per MiB, from times of `size_mib` each."""
    return tuple(round(time.cpu_s / size_mib, 5) for time in times)


@contextlib.contextmanager
def _shell(booted: Machine) -> Iterator[socket.socket]:
    """A socket to a shell on a terminal of the guest, over an extra port."""
    name = "labgrid.sock"
    address: dict[str, object] = {"type": "unix", "data": {"path": f"{qemu.RUN}/{name}"}}
    backend: dict[str, object] = {
        "type": "socket",
        "data": {"addr": address, "server": True, "wait": False},
    }
    device = consoles.plug_port(booted, "labgrid", backend)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(booted.directory / name))
        script = "script --quiet --flush --command 'bash -i' /dev/null"
        booted.serial.check(
            f"setsid {script} 0<> {device} >&0 2>&0 &"
        )  # a port can be opened once only
        yield connection


def _labgrid(booted: Machine, shell: socket.socket, peer: Path) -> Elapsed:
    """Runs labgrid in a subprocess, which inherits the shell's socket."""
    sandbox = Sandbox(
        booted.setup.tools.root,
        read_only={"peer": peer, "side.py": SIDE},
        environment=peers.environment(),
    )
    answer, log = booted.directory / "labgrid.json", booted.directory / "labgrid.log"
    argv = ["python3", f"{BIND}/side.py", str(shell.fileno()), consoles.FILE, str(SIZE_MIB << 20)]
    with open(answer, "wb") as out, open(log, "wb") as errors:
        inherited = [shell.fileno()]
        process = start(sandbox.argv(argv), stdout=out, stderr=errors, pass_fds=inherited)
        with reaped(process):
            try:
                code = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = -1
    if code:
        # the folder is removed then, so the message includes the log
        how = f"exit code {code}" if code > 0 else f"no end after {TIMEOUT_S:.0f} s"
        raise Failure(f"labgrid: {how}\n{tail(log)}")
    return msgspec.json.decode(answer.read_bytes(), type=Elapsed)
