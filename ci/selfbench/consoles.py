# SPDX-License-Identifier: GPL-2.0-or-later
"""Speed of the consoles, against the same work inside the guest alone.

- ``round-trip-serial``, ``round-trip-ssh``: the command `true`, against starting a bash inside the
  guest.
- ``output``: 16 MiB over the serial console, against writing them to a port of the same kind whose
  host side discards them; ``output-cpu``: CPU time of our process meanwhile.
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
PORT = 2  # free on the device: 0 is the user's shell, 1 the serial console

# microseconds, one line per start
_BASH = """
for ((i = 0; i < {count}; i++)); do
    start=$EPOCHREALTIME
    bash -c true
    end=$EPOCHREALTIME
    echo $((${{end/./}} - ${{start/./}}))
done
"""


@contextlib.contextmanager
def guest(context: Context, *, ssh: bool = False, shell: bool = False) -> Iterator[Machine]:
    """Boots a guest with the measured kernel."""
    with (
        boot_env.guest_directory() as folder,
        boot(context.ready.setup(folder, ssh=ssh, shell=shell)) as booted,
    ):
        yield booted


def round_trip_serial(context: Context) -> Measurement:
    """Time of `true` over the serial console, in ms."""
    return _round_trip(context, "serial")


def round_trip_ssh(context: Context) -> Measurement:
    """Time of `true` over ssh, in ms."""
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
    """Wall time, and our CPU time, of much output over the serial console."""
    with guest(context) as booted:
        console = booted.serial
        # not QEMU's null backend: it counts as closed, and a write to a closed port waits
        port = plug_port(booted, "discard", {"type": "file", "data": {"out": "/dev/null"}})
        print_file(console, OUTPUT_MIB)
        pairs = timing.alternate(
            lambda: read_output(console, OUTPUT_MIB),
            lambda: console.check(f"cat {FILE} > {port}", timeout_s=300),
            context.runs,
            warm_up=True,
        )
    against = f"the guest alone, {OUTPUT_MIB} MiB into a port that discards them"
    return (
        timing.compared("output", pairs, against, OUTPUT_LIMIT),
        Measurement(
            name="output-cpu",
            unit="s",
            ours=tuple(ours.cpu_s for ours, _ in pairs),
            limit=OUTPUT_CPU_S,
        ),
    )


def print_file(console: Console, size_mib: int) -> None:
    """Writes printable bytes to FILE, in the guest's memory."""
    console.check(f"head -c {size_mib << 20} /dev/zero | tr '\\0' x > {FILE}")


def read_output(console: Console, size_mib: int) -> None:
    """Reads the start of FILE over a console; raises Failure unless all of it arrives."""
    result = console.run(f"head -c {size_mib << 20} {FILE}", timeout_s=300)
    if len(result.data) != size_mib << 20:
        raise Failure(f"{len(result.data)} bytes arrived of {size_mib} MiB")


def plug_port(booted: Machine, name: str, backend: dict[str, object]) -> str:
    """Adds a port to the device of the serial console; returns its path in the guest.

    backend: QMP's ChardevBackend, the host's side. Unlike hvc0, such a port loses nothing: a guest
    waits until the host has read its output. Raises Failure if the kernel has no virtio console.
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
