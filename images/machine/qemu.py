# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds QEMU's argument list for a guest. Runs nothing.

Each port has one purpose. The first serial port carries the kernel log and, in the other direction,
SysRq keys. The serial console uses port 1 of the virtio console, or a UART (see SERIAL). hvc0 is
for an interactive shell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from blockyard.images.hardware import devices
from blockyard.images.hardware.qapi import Command
from blockyard.images.hardware.topology import Topology
from blockyard.kernel import arch
from blockyard.kernel.host.sandbox import BIND

_ARCH = arch.target()
PROGRAM = _ARCH.qemu.program
PACKAGE = _ARCH.qemu.package
RUN = f"{BIND}/run"  # the guest's folder, as QEMU sees it; the next names are in it
KERNEL_LOG = "kernel.log"
KERNEL_LOG_INPUT = "kernel.in"
MONITOR_SOCKET = "monitor.sock"
GDB_SOCKET = "gdb.sock"
MEMORY_DUMP = "vmcore"
MEMORY = "memory"  # memory of a guest that is saved
STATE = "state"  # its other state
SNAPSHOT = f"{BIND}/snapshot"  # a folder with both, for a guest that starts from a snapshot

# Carriers of the serial console, the best first, with their devices in the guest.
SERIAL = {
    "virtio": "vport0p1",  # fast
    "uart": _ARCH.serial.second,  # a second UART
    "shared": _ARCH.serial.log,  # the only UART, shared with the kernel log
}

# panic=-1 with -no-reboot ends QEMU at a panic, after the kernel log is written. A kernel that
# hangs gets SysRq keys, then an NMI, which makes it panic with a backtrace. printk.devkmsg=on
# keeps the kernel from rate-limiting the lines that separate tests.
_COMMAND_LINE = (
    f"console={_ARCH.serial.log}",
    "panic=-1",
    "printk.devkmsg=on",
    "loglevel=8",
    "rcupdate.rcu_expedited=1",
    "sysrq_always_enabled",
    "net.ifnames=0",
    *_ARCH.command_line,
)


@dataclass(frozen=True)
class Ports:
    """How the host reaches the guest's ports.

    Each is a socket: a file descriptor that QEMU inherits, or the name of a socket in the guest's
    folder that QEMU listens on.
    """

    serial: str  # the carrier of the serial console, a key of SERIAL
    console: int | str  # the serial console
    monitor: int | str  # QMP, for commands
    events: int | None = None  # QMP, for events
    shell: int | str | None = None  # hvc0, for an interactive shell
    ssh: int | None = None  # loopback TCP port that is forwarded to the guest's port 22
    log: Literal["file", "terminal"] = "file"  # the kernel log goes to KERNEL_LOG or to stdout


@dataclass(frozen=True)
class Options:
    """Further options of a guest. Sockets and files are in the guest's folder."""

    monitor: bool = False  # QEMU's monitor, on MONITOR_SOCKET
    gdb: bool = False  # gdb's remote protocol, on GDB_SOCKET
    dump: bool = False  # QEMU pauses instead of rebooting, so that the memory can be dumped
    saved: bool = False  # the guest can be saved: its memory is the file MEMORY
    lpj: int = 0  # loops per jiffy, see images.machine.tsc; 0: the kernel measures it
    resumed: bool = False  # the guest starts from SNAPSHOT


def arguments(
    topology: Topology, accelerator: str, ports: Ports, options: Options = Options()
) -> list[str]:
    """QEMU's complete argument list, with the paths that `launch` binds into the sandbox."""
    return [
        *machine_arguments(topology, accelerator),
        *_memory(topology, options),
        *("-append", " ".join(_command_line(ports, options.lpj))),
        *_kernel_log(ports, append=options.resumed),
        *_consoles(ports),
        *_monitors(ports),
        *_options(options),
        *_read_only_disk("root"),
        *_read_only_disk("modules"),
        *_network(ports),
        *devices.arguments(topology),
    ]


def machine_arguments(topology: Topology, accelerator: str) -> list[str]:
    """The program and the arguments common to all guests: CPUs, memory, kernel, initramfs."""
    return [
        *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", _ARCH.qemu.machine, "-accel", _ACCELERATORS[accelerator]),
        *("-cpu", _ARCH.qemu.cpus[accelerator]),
        *("-bios", _ARCH.qemu.firmware),
        *("-smp", str(topology.cpus), "-m", str(topology.memory_mib)),
        *("-kernel", f"{BIND}/kernel", "-initrd", f"{BIND}/initrd"),
    ]


def kernel_log_arguments() -> list[str]:
    """The arguments of a kernel log that goes to a file in the guest's folder, without input."""
    return ["-chardev", f"file,id=log,path={RUN}/{KERNEL_LOG}", "-serial", "chardev:log"]


def best_serial(config: Mapping[str, str]) -> str:
    """The best carrier of the serial console (a key of SERIAL) with this kernel configuration."""
    if config.get("VIRTIO_CONSOLE", "n") != "n":
        return "virtio"
    return "uart" if int(config.get("SERIAL_8250_RUNTIME_UARTS", "1")) > 1 else "shared"


_ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=multi"}


def command_line(lpj: int) -> list[str]:
    """Kernel parameters of every guest; lpj: loops per jiffy, 0 to let the kernel measure them."""
    return [*_COMMAND_LINE, *([f"lpj={lpj}"] if lpj else [])]


def _command_line(ports: Ports, lpj: int) -> Iterator[str]:
    yield from command_line(lpj)
    yield "blockyard.root=vda"
    yield "blockyard.modules=vdb"
    yield f"blockyard.console={SERIAL[ports.serial]}"
    if ports.serial == "shared":
        yield "printk.time=1"  # the bracket of the time stamp marks the kernel's lines
    if ports.shell is not None:
        yield "blockyard.shell=hvc0"
    if ports.ssh is not None:
        yield "blockyard.ssh"


def _memory(topology: Topology, options: Options) -> Iterator[str]:
    if options.saved:
        file = f"mem-path={RUN}/{MEMORY},share=on"
    elif options.resumed:
        file = f"mem-path={SNAPSHOT}/{MEMORY},share=off,readonly=on,rom=off"
        yield from ("-incoming", "defer")  # RESUME follows
    else:
        return
    size = f"size={topology.memory_mib}M"
    yield from ("-object", f"memory-backend-file,id=ram,{size},{file}")
    yield from ("-machine", "memory-backend=ram")


# The memory is in a file; only the other state has to be migrated.
IGNORE_MEMORY: Command = (
    "migrate-set-capabilities",
    {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
)
# The QMP commands that start a guest from a snapshot.
RESUME: tuple[Command, ...] = (
    IGNORE_MEMORY,
    ("migrate-incoming", {"uri": f"file:{SNAPSHOT}/{STATE}"}),
)


def _kernel_log(ports: Ports, *, append: bool) -> Iterator[str]:
    """The kernel log's port: output to a file in the guest's folder, input from a named pipe."""
    log = f"{RUN}/{KERNEL_LOG}"
    if ports.log == "terminal":
        yield from ("-chardev", "stdio,id=log", "-serial", "chardev:log")
        return
    if ports.serial == "shared":
        yield from ("-chardev", f"{_socket('console', ports.console)},logfile={log}")
        yield from ("-serial", "chardev:console")
        return
    source = f"input-path={RUN}/{KERNEL_LOG_INPUT},append={'on' if append else 'off'}"
    yield from ("-chardev", f"file,id=log,path={log},{source}", "-serial", "chardev:log")


def _consoles(ports: Ports) -> Iterator[str]:
    if ports.shell is not None or ports.serial == "virtio":
        yield from ("-device", "virtio-serial-pci,max_ports=4")
    if ports.shell is not None:
        yield from ("-chardev", _socket("shell", ports.shell))
        yield from ("-device", "virtconsole,chardev=shell,nr=0")
    if ports.serial == "shared":
        return
    yield from ("-chardev", _socket("console", ports.console))
    if ports.serial == "uart":
        yield from ("-serial", "chardev:console")
    else:
        yield from ("-device", "virtserialport,chardev=console,name=blockyard.console,nr=1")


def _monitors(ports: Ports) -> Iterator[str]:
    for name, port in {"events": ports.events, "control": ports.monitor}.items():
        if port is not None:
            yield from ("-chardev", _socket(name, port))
            yield from ("-mon", f"chardev={name},mode=control")


def _socket(name: str, port: int | str) -> str:
    if isinstance(port, int):
        return f"socket,id={name},fd={port}"
    return f"socket,id={name},path={RUN}/{port},server=on,wait=off"


def _options(options: Options) -> Iterator[str]:
    if options.monitor:
        yield from ("-chardev", _socket("monitor", MONITOR_SOCKET))
        yield from ("-mon", "chardev=monitor,mode=readline")
    if options.gdb:
        yield from ("-chardev", _socket("gdb", GDB_SOCKET))
        yield from ("-gdb", "chardev:gdb")
    if options.dump:
        yield from ("-action", "shutdown=pause")
        yield from ("-device", "vmcoreinfo")  # the kernel stores there how to read a dump


def _read_only_disk(name: str) -> Iterator[str]:
    yield from ("-blockdev", f"file,node-name={name},filename={BIND}/{name},read-only=on")
    yield from ("-device", f"virtio-blk-pci,drive={name},serial=blockyard-{name}")


def _network(ports: Ports) -> Iterator[str]:
    if ports.ssh is None:
        return
    forward = f"hostfwd=tcp:127.0.0.1:{ports.ssh}-:22"
    yield from ("-netdev", f"user,id=net,restrict=on,{forward}")
    # a high slot: snapshots have no network, and the slots of other devices must not shift
    yield from ("-device", "virtio-net-pci,netdev=net,romfile=,addr=0x1e")
