# SPDX-License-Identifier: GPL-2.0-or-later
"""From what a guest should be to QEMU's argument list. Nothing is run here.

The ports, each with one purpose: ttyS0 carries the kernel log and nothing else; port 1 of the
virtio console carries the serial console's frames; hvc0 is for a person's shell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from images.topology import Topology
from kernel.host.sandbox import BIND

PROGRAM = "qemu-system-x86_64"
KERNEL_LOG = "kernel.log"  # in the guest's folder

# panic=-1 with -no-reboot ends QEMU at a panic; the kernel log is written by then. The devkmsg
# option keeps the kernel from dropping the lines that separate one test from the next. The TSC's
# watchdog would blame the clock for what a loaded host does to an emulated one. With five levels of
# page tables KASAN reports a wild access when an interrupt hits identify_cpu(), which forgets LA57
# for a moment (seen with 7.3.4; "kasan: Fix false-positive wild-memory-access on x86 under 5-level
# paging", linux-mm, June 2026).
COMMAND_LINE = (
    "console=ttyS0",
    "panic=-1",
    "printk.devkmsg=on",
    "loglevel=8",
    "rcupdate.rcu_expedited=1",
    "random.trust_cpu=on",
    "tsc=nowatchdog",
    "no5lvl",
    "net.ifnames=0",
)


@dataclass(frozen=True)
class Ports:
    """How the host reaches the guest's ports: inherited socket descriptors and a TCP port."""

    console: int  # file descriptor of the serial console
    shell: int | None = None  # file descriptor of hvc0, when a person wants a shell
    ssh: int | None = None  # loopback TCP port that is forwarded to the guest's port 22


def arguments(topology: Topology, accelerator: str, ports: Ports) -> list[str]:
    """QEMU's argument list, with the paths that `machine` binds into the sandbox."""
    return [
        *machine_arguments(topology, accelerator),
        *("-append", " ".join(_command_line(ports))),
        *kernel_log_arguments(),
        *_consoles(ports),
        *_read_only_disk("root"),
        *_read_only_disk("modules"),
        *_network(ports),
        *_nvme(topology),
    ]


def machine_arguments(topology: Topology, accelerator: str) -> list[str]:
    """The program and the part that every guest has: processors, memory, kernel, initramfs."""
    return [
        *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", "q35,usb=off", "-accel", _ACCELERATORS[accelerator]),
        *("-cpu", _CPUS[accelerator]),
        *("-bios", "qboot.rom"),
        *("-smp", str(topology.cpus), "-m", str(topology.memory_mib)),
        *("-kernel", f"{BIND}/kernel", "-initrd", f"{BIND}/initrd"),
    ]


def kernel_log_arguments() -> list[str]:
    """ttyS0, written to a file in the guest's folder."""
    return ["-chardev", f"file,id=log,path={BIND}/run/{KERNEL_LOG}", "-serial", "chardev:log"]


_ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=multi"}
# TCG runs `rep stosb` a byte at a time: without these features the kernel uses loops over words,
# which takes 0.2 s off its boot.
_CPUS = {"kvm": "host", "tcg": "max,-erms,-fsrm,-fsrs,-fzrm"}


def _command_line(ports: Ports) -> Iterator[str]:
    yield from COMMAND_LINE
    yield "blockyard.root=vda"
    yield "blockyard.modules=vdb"
    yield "blockyard.console=vport0p1"
    if ports.shell is not None:
        yield "blockyard.shell=hvc0"
    if ports.ssh is not None:
        yield "blockyard.ssh"


def _consoles(ports: Ports) -> Iterator[str]:
    yield from ("-device", "virtio-serial-pci,max_ports=2")
    if ports.shell is not None:
        yield from ("-chardev", f"socket,id=shell,fd={ports.shell}")
        yield from ("-device", "virtconsole,chardev=shell,nr=0")
    yield from ("-chardev", f"socket,id=console,fd={ports.console}")
    yield from ("-device", "virtserialport,chardev=console,name=blockyard.console,nr=1")


def _read_only_disk(name: str) -> Iterator[str]:
    yield from ("-blockdev", f"file,node-name={name},filename={BIND}/{name},read-only=on")
    yield from ("-device", f"virtio-blk-pci,drive={name},serial=blockyard-{name}")


def _network(ports: Ports) -> Iterator[str]:
    if ports.ssh is None:
        return
    forward = f"hostfwd=tcp:127.0.0.1:{ports.ssh}-:22"
    yield from ("-netdev", f"user,id=net,restrict=on,{forward}")
    yield from ("-device", "virtio-net-pci,netdev=net,romfile=")


def disk_name(controller: int, namespace: int) -> str:
    """The file in the guest's folder that holds a namespace's data."""
    return f"nvme{controller}n{namespace}.raw"


def _nvme(topology: Topology) -> Iterator[str]:
    for c, controller in enumerate(topology.controllers):
        yield from ("-device", f"nvme,id=nvme{c},serial={controller.serial}")
        for n, namespace in enumerate(controller.namespaces, start=1):
            file = f"{BIND}/run/{disk_name(c, n)}"
            node = f"nvme{c}n{n}"
            size = namespace.block_size
            # what a guest writes need not outlive it: no host flushes
            cache = "cache.no-flush=on,discard=unmap"
            yield from ("-blockdev", f"file,node-name={node},filename={file},{cache}")
            yield from (
                "-device",
                f"nvme-ns,bus=nvme{c},drive={node},nsid={n}"
                f",logical_block_size={size},physical_block_size={size}",
            )
