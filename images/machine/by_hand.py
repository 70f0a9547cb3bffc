# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a guest's QEMU command into a file: as it ran, and as a script to run it by hand.

We pass sockets and memory files to QEMU as descriptors, which a shell script cannot. In the script
the kernel log is on the terminal, consoles and monitor are sockets in a temporary folder, and disks
in memory are files there. It has no network, because the ssh keys of a guest are not kept.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from blockyard.images.hardware import devices
from blockyard.images.hardware.topology import Topology
from blockyard.images.machine import qemu
from blockyard.kernel.host import commands
from blockyard.kernel.host.sandbox import Sandbox

if TYPE_CHECKING:
    from blockyard.images.machine.vm_config import VmConfig

CMDLINE = "qemu.cmdline"  # in the guest's folder
CONSOLE_SOCKET = "console.sock"
SHELL_SOCKET = "shell.sock"
QMP_SOCKET = "qmp.sock"
_RUN = Path("/nonexistent/run")  # placeholder for the temporary folder, which the script makes


def script(
    setup: VmConfig,
    sandbox: Sandbox,
    argv: Sequence[str],
    options: qemu.Options,
) -> str:
    """The text of CMDLINE: the command that ran as comments, then a shell script.

    sandbox, argv, options: those that the guest was started with. The script always boots, also
    for a guest that was started from a snapshot.
    """
    topology = _with_files(setup.topology)
    ports = qemu.Ports(
        serial=setup.serial_port,
        console=CONSOLE_SOCKET,
        monitor=QMP_SOCKET,
        shell=SHELL_SOCKET if setup.shell else None,
        log="terminal",
    )
    booted = replace(options, saved=False, resumed=False)
    command = qemu.arguments(topology, setup.accelerator.name, ports, booted)
    sandboxed = replace(
        sandbox,
        read_only={
            "kernel": setup.kernel.image,
            "initrd": setup.files.initramfs,
            "root": setup.files.root,
            "modules": setup.files.modules,
        },
        writable={"run": _RUN},
        network=False,
    )
    lines = [*_comments(setup, argv, command, resumed=options.resumed), "run=$(mktemp -d)"]
    for name, size in devices.backing_files(topology).items():
        lines.append(f'truncate -s {size} "$run"/{shlex.quote(name)}')
    lines.append(commands.line(sandboxed.argv(command)).replace(str(_RUN), '"$run"'))
    lines.append('rm -r "$run"')
    return "\n".join([*lines, ""])


def _comments(
    setup: VmConfig, argv: Sequence[str], command: Sequence[str], *, resumed: bool
) -> Iterator[str]:
    ran = commands.command_of(argv)
    kernel, topology = setup.kernel.info, setup.topology.name
    yield f"# kernel {commands.line([kernel.name])} ({kernel.release}), topology {topology}"
    yield f"# kernel command line: {ran[ran.index('-append') + 1]}"
    if resumed:
        yield "# The guest was started from a snapshot. This script boots it."
    yield "# As it ran (fd=N: a socket or a file that QEMU inherited):"
    yield f"# $ {commands.line(argv)}"
    yield "#"
    yield "# By hand: sh this file, or paste what follows; Ctrl-C ends QEMU."
    yield "# The kernel log is on the terminal; in $run are"
    if setup.serial_port != "shared":
        yield f"#   {CONSOLE_SOCKET}: the console of tests"
    if setup.shell:
        yield f'#   {SHELL_SOCKET}: a shell (socat -,raw,echo=0 UNIX-CONNECT:"$run"/{SHELL_SOCKET})'
    yield f"#   {QMP_SOCKET}: QMP"


def _with_files(topology: Topology) -> Topology:
    """The same topology with the backing `file` in place of `memory`."""
    data = msgspec.json.encode(topology)
    data = data.replace(b'"backing":"memory"', b'"backing":"file"')
    return msgspec.json.decode(data, type=Topology)
