# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest from its start to its end.

`machine` is a context manager: when it is left, QEMU is gone and its scratch files with it,
however it was left. QEMU runs in the tool root under bwrap, which ends it when this process dies.
The console and the shell port are socket pairs that QEMU inherits: nothing is named, nothing
listens. Only ssh needs a port, on the loopback address.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from images import qemu
from images.console import Console
from images.errors import ConsoleDead, GuestPanicked, GuestSilent, QemuDied
from images.files import GuestFiles
from images.kernel_log import KernelLog
from images.serial import SocketTransport
from images.topology import Topology
from kernel.artifact import Kernel
from kernel.host.debian import ToolRoot
from kernel.host.errors import Failed
from kernel.host.process import reaped, start, tail
from kernel.host.sandbox import Sandbox

if TYPE_CHECKING:
    import paramiko

    from images import ssh

BOOT_S = 30.0  # from QEMU's start to the console's greeting, at accelerator scale 1
SSH_S = 30.0  # from then to an ssh connection
EXIT_S = 2.0  # QEMU ends within this after a panic
PORT_TRIES = 5


@dataclass(frozen=True)
class Accelerator:
    """What runs the guest's instructions, and what is known of it."""

    name: str  # kvm or tcg
    reason: str  # why it was chosen, for people
    scale: float  # how much longer than KVM's a deadline has to be


@dataclass(frozen=True)
class Setup:
    """What to boot, and on what."""

    kernel: Kernel
    files: GuestFiles
    tools: ToolRoot
    accelerator: Accelerator
    topology: Topology
    directory: Path  # where this guest's kernel log and scratch files go
    ssh: bool = False  # bring up the network and sshd
    shell: bool = False  # a shell on hvc0


@dataclass
class Machine:
    """A guest that has come up."""

    setup: Setup
    log: KernelLog
    serial: Console
    shell: socket.socket | None
    _process: subprocess.Popen[bytes]
    _keys: ssh.Keys | None = None
    _port: int | None = None
    _consoles: list[Console] = field(default_factory=list)

    def watch(self) -> None:
        """Raises GuestPanicked or QemuDied when the guest is gone."""
        ended = self._process.poll() is not None
        if self.log.panicked():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_S)  # the rest of the log
            raise GuestPanicked(
                "the guest's kernel panicked", kernel_log=self.log.tail(), log=self.log.path
            )
        if ended:
            errors = tail(self.setup.directory / "qemu.log")
            raise QemuDied(
                f"QEMU ended with {self._process.returncode} while the guest was needed\n{errors}",
                kernel_log=self.log.tail(),
                log=self.log.path,
            )

    def console(self, name: str) -> Console:
        """The console of that name: ``serial``, or ``ssh`` (connected when first asked for)."""
        if name == "serial":
            return self.serial
        for console in self._consoles:
            if console.name == name:
                return console
        from images import ssh

        scale = self.setup.accelerator.scale
        transport = ssh.ChannelTransport(self.connection())
        console = Console(name, transport, self.watch, scale, self.log.tail)
        try:
            console.wait_ready(SSH_S * scale)
        except BaseException:
            console.close()
            raise
        self._consoles.append(console)
        return console

    def connection(self) -> paramiko.Transport:
        """A new ssh connection to the guest."""
        from images import ssh

        if self._keys is None or self._port is None:
            raise Failed("this guest was started without ssh")
        limit_s = SSH_S * self.setup.accelerator.scale
        return ssh.connect(self._port, self._keys, self.watch, limit_s)

    def kill_qemu(self) -> None:
        """Ends QEMU at once, as a power cut would."""
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def machine(setup: Setup) -> Iterator[Machine]:
    """Boots a guest; the block runs when its serial console answers.

    Raises GuestPanicked, QemuDied or GuestSilent when it does not come up.
    """
    setup.directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        disks = _scratch_disks(setup)
        stack.callback(_remove, disks)
        keys = _ssh_keys() if setup.ssh else None
        guest = _start(setup, keys, stack)
        limit_s = BOOT_S * setup.accelerator.scale
        try:
            guest.serial.wait_ready(limit_s)
        except ConsoleDead:
            raise GuestSilent(
                f"kernel {setup.kernel.info.name}: the guest did not come up in {limit_s:.0f} s",
                kernel_log=guest.log.tail(),
                log=guest.log.path,
            ) from None
        yield guest


def _start(setup: Setup, keys: ssh.Keys | None, stack: contextlib.ExitStack) -> Machine:
    """Starts QEMU; a port that somebody took in the meantime is replaced by another."""
    tries = PORT_TRIES if setup.ssh else 1
    for attempt in range(1, tries + 1):
        port = _free_port() if setup.ssh else None
        with contextlib.ExitStack() as trial:
            guest = _launch(setup, keys, port, trial)
            if port is None or not _port_was_taken(guest):
                stack.push(trial.pop_all())
                return guest
        if attempt == tries:
            break
    raise Failed(f"no free loopback port for ssh after {tries} tries")


def _ssh_keys() -> ssh.Keys:
    from images import ssh  # heavy, and most guests do without

    return ssh.make_keys()


def _free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port_was_taken(guest: Machine) -> bool:
    """QEMU sets up its network before it runs: it is past that, or has ended with the message."""
    log = guest.setup.directory / "qemu.log"
    process = guest._process
    deadline = time.monotonic() + BOOT_S * guest.setup.accelerator.scale
    while process.poll() is None and guest.log.size == 0 and time.monotonic() < deadline:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    return process.poll() is not None and b"host forwarding rule" in log.read_bytes()


def _launch(
    setup: Setup, keys: ssh.Keys | None, port: int | None, stack: contextlib.ExitStack
) -> Machine:
    console, console_end = _socket_pair(stack)
    shell, shell_end = _socket_pair(stack) if setup.shell else (None, None)
    ends = [end for end in (console_end, shell_end) if end]
    ports = qemu.Ports(
        console=console_end.fileno(),
        shell=shell_end.fileno() if shell_end else None,
        ssh=port,
    )
    sandbox = _sandbox(setup, _initrd(setup, keys, stack))
    argv = sandbox.argv(qemu.arguments(setup.topology, setup.accelerator.name, ports))
    log = KernelLog(setup.directory / qemu.KERNEL_LOG)
    log.path.write_bytes(b"")
    with open(setup.directory / "qemu.log", "wb") as errors:
        inherited = [end.fileno() for end in ends]
        process = start(argv, stdout=errors, stderr=errors, pass_fds=inherited)
    stack.enter_context(reaped(process))
    for end in ends:
        end.close()
    scale = setup.accelerator.scale
    transport = SocketTransport(console)
    guest = Machine(
        setup=setup,
        log=log,
        serial=Console("serial", transport, lambda: guest.watch(), scale, log.tail),
        shell=shell,
        _process=process,
        _keys=keys,
        _port=port,
    )
    stack.callback(_close_consoles, guest)
    return guest


def _initrd(setup: Setup, keys: ssh.Keys | None, stack: contextlib.ExitStack) -> Path:
    """The initramfs; with keys, a copy that has them joined to it for as long as the guest is."""
    initramfs = setup.files.initramfs
    if keys is None:
        return initramfs
    joined = setup.directory / "initrd"
    joined.write_bytes(initramfs.read_bytes() + keys.initramfs())
    stack.callback(_remove, [joined])
    return joined


def _sandbox(setup: Setup, initrd: Path) -> Sandbox:
    """What QEMU sees of the host: the files it boots from, and the guest's folder."""
    return Sandbox(
        setup.tools.root,
        read_only={
            "kernel": setup.kernel.image,
            "initrd": initrd,
            "root": setup.files.root,
            "modules": setup.files.modules,
        },
        writable={"run": setup.directory},
        devices=["/dev/kvm"] if setup.accelerator.name == "kvm" else [],
        network=setup.ssh,
    )


def _socket_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    stack.callback(theirs.close)
    return ours, theirs


def _close_consoles(guest: Machine) -> None:
    for console in guest._consoles:
        console.close()


def _scratch_disks(setup: Setup) -> list[Path]:
    """Sparse files for the NVMe namespaces."""
    disks = []
    for c, controller in enumerate(setup.topology.controllers):
        for n, namespace in enumerate(controller.namespaces, start=1):
            disk = setup.directory / qemu.disk_name(c, n)
            disk.touch()
            os.truncate(disk, namespace.size_mib << 20)
            disks.append(disk)
    return disks


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
