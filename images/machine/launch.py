# SPDX-License-Identifier: GPL-2.0-or-later
"""Starts QEMU and connects to its ports.

QEMU runs in the tool root under bwrap, which kills it when this process dies. The console, the
shell port and QEMU's monitors are socket pairs that it inherits, so there are no socket files and
nothing listens. Only ssh needs a port, on the loopback address.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.images.hardware import devices
from blockyard.images.hardware.topology import Topology
from blockyard.images.machine import by_hand, qemu, tsc
from blockyard.images.machine.ports import QEMU_LOG, Started
from blockyard.images.machine.scratch import make_disks
from blockyard.images.machine.snapshot import Snapshot, saved_topology
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.limits import Limits
from blockyard.kernel.host.process import reaped, start
from blockyard.kernel.host.sandbox import Sandbox

if TYPE_CHECKING:
    from blockyard.images.console import ssh

PORT_TRIES = 5
PORT_S = 30.0  # QEMU has bound its port or failed within this, at accelerator scale 1


def launch(setup: VmConfig, stack: ExitStack, snapshot: Snapshot | None = None) -> Started:
    """Starts QEMU, to boot or from a snapshot; closing `stack` ends it.

    Retries with another port for ssh when the chosen port is in use. Raises Failure when the disks
    cannot be made or no port is free.
    """
    topology = setup.topology
    if snapshot is not None:
        setup = replace(setup, topology=saved_topology(topology))
    try:
        make_disks(setup.directory, devices.backing_files(setup.topology))
    except OSError as error:
        raise Failure(
            f"cannot make the disks of topology {setup.topology.name} in {setup.directory}: "
            f"{error.strerror}",
            hint="a namespace may exceed the largest file size of this file system (size_mib)",
        ) from None
    if not setup.ssh:
        return _start(setup, topology, None, None, stack, snapshot)
    from blockyard.images.console import ssh  # slow to import; few guests need it

    keys = ssh.make_keys()
    for _ in range(PORT_TRIES):
        with ExitStack() as trial:
            started = _start(setup, topology, keys, _free_port(), trial, snapshot)
            if not _port_was_taken(setup, started):
                stack.push(trial.pop_all())
                return started
    raise Failure(f"no free loopback port for ssh after {PORT_TRIES} tries")


def _free_port() -> int:
    """A loopback port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port_was_taken(setup: VmConfig, started: Started) -> bool:
    """Whether QEMU failed to bind its port.

    QEMU opens its monitors after its network: wait for its greeting, or its end with the message.
    """
    select.select([started.events], [], [], PORT_S * setup.accelerator.scale)
    return b"host forwarding rule" in (setup.directory / QEMU_LOG).read_bytes()


def _start(
    setup: VmConfig,
    topology: Topology,
    keys: ssh.Keys | None,
    ssh_port: int | None,
    stack: ExitStack,
    snapshot: Snapshot | None,
) -> Started:
    """topology: the complete one, with the controllers that are plugged in after a resume."""
    console, console_end = _socket_pair(stack)
    events, events_end = _socket_pair(stack)
    monitor, monitor_end = _socket_pair(stack)
    shell, shell_end = _socket_pair(stack) if setup.shell else (None, None)
    ends = [end for end in (console_end, events_end, monitor_end, shell_end) if end]
    ports = qemu.Ports(
        serial=setup.serial_port,
        console=console_end.fileno(),
        events=events_end.fileno(),
        monitor=monitor_end.fileno(),
        shell=shell_end.fileno() if shell_end else None,
        ssh=ssh_port,
    )
    options = qemu.Options(
        monitor=setup.monitor,
        gdb=setup.gdb,
        dump=setup.dump,
        saved=setup.saved,
        lpj=tsc.loops_per_jiffy(setup.accelerator.name, setup.kernel.config),
        resumed=snapshot is not None,
    )
    sysrq = _fifo(setup.directory / qemu.KERNEL_LOG_INPUT, stack)
    memory = _memory_disks(setup, stack)
    argv = qemu.arguments(setup.topology, setup.accelerator.name, ports, options)
    argv += devices.inherited(setup.topology, memory)
    sandbox = _sandbox(setup, _initrd(setup, keys), snapshot)
    argv = sandbox.argv(argv)
    shown = by_hand.script(replace(setup, topology=topology), sandbox, argv, options)
    (setup.directory / by_hand.CMDLINE).write_text(shown)
    so_far = snapshot.kernel_log.read_bytes() if snapshot else b""
    (setup.directory / qemu.KERNEL_LOG).write_bytes(so_far)
    with open(setup.directory / QEMU_LOG, "wb") as errors:
        inherited = [*(end.fileno() for end in ends), *memory.values()]
        process = start(argv, stdout=errors, stderr=errors, pass_fds=inherited)
    stack.enter_context(reaped(process))
    for end in ends:
        end.close()
    return Started(process, console, events, monitor, shell, sysrq, keys, ssh_port)


def _socket_pair(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


def _fifo(path: Path, stack: ExitStack) -> int:
    """Makes a named pipe that QEMU reads from; the descriptor to write to."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    # opened for reading and writing, so that it has a reader from the start
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor


def _initrd(setup: VmConfig, keys: ssh.Keys | None) -> Path:
    """The path of the initramfs; with keys, of a copy that they are appended to."""
    initramfs = setup.files.initramfs
    if keys is None:
        return initramfs
    joined = setup.directory / "initrd"
    joined.write_bytes(initramfs.read_bytes() + keys.initramfs())
    return joined


def _sandbox(setup: VmConfig, initrd: Path, snapshot: Snapshot | None) -> Sandbox:
    """The sandbox of QEMU: it sees the files that it starts from, and the guest's folder."""
    return Sandbox(
        setup.tools.root,
        read_only={
            "kernel": setup.kernel.image,
            "initrd": initrd,
            "root": setup.files.root,
            "modules": setup.files.modules,
            **({"snapshot": snapshot.path} if snapshot else {}),
        },
        writable={"run": setup.directory},
        devices=setup.accelerator.devices,
        network=setup.ssh,
        proxies=False,
        io_uring=True,
        limits=Limits(file_mib=None),  # a disk under test is sparse and may have any size
    )


def _memory_disks(setup: VmConfig, stack: ExitStack) -> dict[str, int]:
    """Makes the memfds that QEMU inherits: name → descriptor."""
    descriptors = {}
    for name, size in devices.memory_files(setup.topology).items():
        descriptors[name] = os.memfd_create(name)
        stack.callback(os.close, descriptors[name])
        os.truncate(descriptors[name], size)
    return descriptors
