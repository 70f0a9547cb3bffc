# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's QEMU command: as it ran, and as a script that runs it again by hand.

QEMU inherits sockets and memory files from us, which a shell cannot give it. By hand the kernel log
is on the terminal, consoles and monitor are sockets in a temporary folder, disks in memory are
files there, and there is no network: a guest's ssh keys end with it.
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
_RUN = Path("/nonexistent/run")  # stands for the temporary folder, which the script makes


def script(
    setup: VmConfig,
    sandbox: Sandbox,
    argv: Sequence[str],
    options: qemu.Options,
) -> str:
    """The text of CMDLINE: comments with what ran, then lines for a shell.

    sandbox, argv, options: what the guest was started with. A guest that starts from a snapshot
    boots by hand.
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
    outside = replace(
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
    lines.append(commands.line(outside.argv(command)).replace(str(_RUN), '"$run"'))
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
        yield "# It started from a snapshot. By hand it boots."
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
    """The same hardware with files behind it in place of memory that QEMU inherits."""
    data = msgspec.json.encode(topology)
    data = data.replace(b'"backing":"memory"', b'"backing":"file"')
    return msgspec.json.decode(data, type=Topology)
