# SPDX-License-Identifier: GPL-2.0-or-later
"""What the consoles cost, beside what the guest itself does for the same.

- ``round-trip-serial``, ``round-trip-ssh``: a command that does nothing; beside it, what the start
  of a bash costs inside the guest.
- ``output``: 16 MiB over the serial console, against the guest writing them to a port of the same
  kind whose host side throws them away; ``output-cpu``: the CPU time of our process meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from blockyard.ci.run import boot_env
from blockyard.ci.selfbench import timing
from blockyard.ci.selfbench.timing import Context, elapsed
from blockyard.ci.selfbench.values import Measurement
from blockyard.images.boot import boot
from blockyard.images.console.console import Console
from blockyard.images.machine.machine import Machine
from blockyard.kernel.host.errors import Failure

ROUND_TRIPS = 500
WARM_UP = 20  # commands before the first that counts
ROUND_TRIP_MS = {"serial": 15.0, "ssh": 30.0}
BASH_STARTS = 200
OUTPUT_MIB = 16
OUTPUT_LIMIT = 2.0
OUTPUT_CPU_S = 0.5
FILE = "/run/selfbench-output"  # in the guest's memory
PORT = 2  # free on the device: 0 is a person's shell, 1 the serial console

# microseconds, one line per start
_BASH = """
for ((i = 0; i < {count}; i++)); do
    begun=$EPOCHREALTIME
    bash -c true
    ended=$EPOCHREALTIME
    echo $((${{ended/./}} - ${{begun/./}}))
done
"""


@contextlib.contextmanager
def guest(context: Context, *, ssh: bool = False, shell: bool = False) -> Iterator[Machine]:
    """A guest of the kernel that is measured."""
    with (
        boot_env.guest_directory() as folder,
        boot(context.ready.setup(folder, ssh=ssh, shell=shell)) as booted,
    ):
        yield booted


def round_trip_serial(context: Context) -> Measurement:
    """`true` over the serial console."""
    return _round_trip(context, "serial")


def round_trip_ssh(context: Context) -> Measurement:
    """`true` over ssh."""
    return _round_trip(context, "ssh")


def _round_trip(context: Context, name: str) -> Measurement:
    with guest(context, ssh=name == "ssh") as booted:
        console = booted.console(name)
        for _ in range(WARM_UP):
            console.check("true")
        ours = [elapsed(lambda: console.run("true")).wall_s for _ in range(ROUND_TRIPS)]
        starts = console.check(_BASH.format(count=BASH_STARTS))
    return Measurement(
        name=f"round-trip-{name}",
        unit="ms",
        ours=tuple(round(seconds * 1e3, 3) for seconds in ours),
        reference=tuple(int(line) / 1e3 for line in starts.split()),
        against="the start of `bash -c true`, inside the guest",
        limit=ROUND_TRIP_MS[name],
    )


def output(context: Context) -> tuple[Measurement, Measurement]:
    """Much output over the serial console: wall time, and our CPU time."""
    with guest(context) as booted:
        console = booted.serial
        # QEMU's own null backend counts as closed, and a write to a closed port waits
        port = plug_port(booted, "discard", {"type": "file", "data": {"out": "/dev/null"}})
        print_file(console, OUTPUT_MIB)
        pairs = timing.alternate(
            lambda: read_output(console, OUTPUT_MIB),
            lambda: console.check(f"cat {FILE} > {port}", timeout_s=300),
            context.runs,
            warm_up=True,
        )
    against = f"the guest alone, {OUTPUT_MIB} MiB into a port that nobody reads"
    return (
        timing.compared("output", pairs, against, OUTPUT_LIMIT),
        Measurement(
            name="output-cpu",
            unit="s",
            ours=tuple(one.cpu_s for one, _ in pairs),
            limit=OUTPUT_CPU_S,
        ),
    )


def print_file(console: Console, size_mib: int) -> None:
    """Puts printable bytes into FILE, in the guest's memory."""
    console.check(f"head -c {size_mib << 20} /dev/zero | tr '\\0' x > {FILE}")


def read_output(console: Console, size_mib: int) -> None:
    """Has the guest print the beginning of FILE; raises Failure unless all of it arrives."""
    result = console.run(f"head -c {size_mib << 20} {FILE}", timeout_s=300)
    if len(result.data) != size_mib << 20:
        raise Failure(f"{len(result.data)} bytes arrived of {size_mib} MiB")


def plug_port(booted: Machine, name: str, backend: dict[str, object]) -> str:
    """Plugs another port into the device of the serial console; returns the guest's device.

    backend: QMP's ChardevBackend, the host's side. Unlike hvc0 such a port loses nothing: a guest
    waits until the host takes what it writes.
    """
    if booted.setup.serial_port != "virtio":
        name = booted.setup.kernel.info.name
        raise Failure(f"kernel {name} has no virtio console to compare with")
    port = {"driver": "virtserialport", "id": name, "chardev": name, "nr": PORT}
    booted.qmp.execute("chardev-add", {"id": name, "backend": backend})
    booted.qmp.execute("device_add", {**port, "name": f"blockyard.{name}"})
    device = f"/dev/vport0p{PORT}"
    booted.serial.check(f"until [ -c {device} ]; do sleep 0.1; done", timeout_s=10)
    return device
