# SPDX-License-Identifier: GPL-2.0-or-later
"""``boot``: ``./inv boot --run true`` against QEMU with the same kernel and a trivial init.

Machine, CPU model, firmware, kernel image and command line are the same on both sides, so settings
that speed up the kernel's start help both. ``boot-plain`` compares with QEMU started by hand: a
bzImage, QEMU's default firmware and CPU model; the same machine, memory and number of CPUs.
``snapshot`` starts from a saved guest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blockyard.ci.selfbench import timing
from blockyard.ci.selfbench.commands import inv
from blockyard.ci.selfbench.timing import Context
from blockyard.ci.selfbench.values import Measurement
from blockyard.images import cpio
from blockyard.images.hardware.topology import DEFAULT
from blockyard.images.machine import qemu, tsc
from blockyard.images.machine.vm_config import BootEnv
from blockyard.kernel import arch
from blockyard.kernel.host import store
from blockyard.kernel.host.debian import ToolRoot
from blockyard.kernel.host.process import run
from blockyard.kernel.host.sandbox import BIND, Sandbox
from blockyard.kernel.host.settings import PROJECT

LIMIT = 1.25


@dataclass(frozen=True)
class Bare:
    """A bare QEMU: the kernel image, and its arguments without those for the kernel log."""

    image: Path
    arguments: list[str]


def boot(context: Context) -> Measurement:
    """Wall time of ``./inv boot --run true``."""
    return _first_answer("boot", "boot", context, _our_machine(context), LIMIT)


def boot_plain(context: Context) -> Measurement:
    """The same, against QEMU started by hand."""
    return _first_answer("boot-plain", "boot", context, _plain_machine(context), LIMIT)


def snapshot(context: Context) -> Measurement:
    """Wall time of ``--start snapshot``; a warm-up run makes the snapshot."""
    return _first_answer("snapshot", "snapshot", context, _our_machine(context), None)


def _first_answer(
    name: str, start: str, context: Context, bare: Bare, limit: float | None
) -> Measurement:
    ready = context.ready
    command = ["boot", *context.spec.options, "--accel", ready.accelerator.name]
    command += ["--start", start, "--run", "true"]
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        bare_boot = _bare_boot(ready, bare, Path(folder))
        pairs = timing.alternate(lambda: inv(command), bare_boot, context.runs, warm_up=True)
    return timing.compared(name, pairs, "QEMU, an init that powers off", limit)


def _our_machine(context: Context) -> Bare:
    accelerator, kernel = context.ready.accelerator.name, context.ready.kernel
    lpj = tsc.loops_per_jiffy(accelerator, kernel.config)
    arguments = [
        *qemu.machine_arguments(DEFAULT, accelerator),
        *("-append", " ".join(qemu.command_line(lpj))),
    ]
    return Bare(kernel.image, arguments)


def _plain_machine(context: Context) -> Bare:
    accelerator = context.ready.accelerator.name
    arguments = [
        *(qemu.PROGRAM, "-nodefaults", "-display", "none", "-no-reboot"),
        *("-machine", arch.target().qemu.machine, "-accel", accelerator),
        *("-cpu", "host" if accelerator == "kvm" else "max"),
        *("-smp", str(DEFAULT.cpus), "-m", str(DEFAULT.memory_mib)),
        *("-kernel", f"{BIND}/kernel", "-initrd", f"{BIND}/initrd"),
        *("-append", f"console={arch.target().serial.log} panic=-1"),
    ]
    return Bare(context.ready.kernel.bzimage, arguments)


def _bare_boot(ready: BootEnv, bare: Bare, folder: Path) -> Callable[[], None]:
    initramfs = folder / "initramfs"
    initramfs.write_bytes(cpio.archive([cpio.File("init", _bare_init(ready.tools), 0o755)]))
    sandbox = Sandbox(
        ready.tools.root,
        read_only={"kernel": bare.image, "initrd": initramfs},
        writable={"run": folder},
        devices=ready.accelerator.devices,
    )
    argv = sandbox.argv([*bare.arguments, *qemu.kernel_log_arguments()])

    def boot() -> None:
        run(argv, log=folder / "qemu.log", doing="booting bare QEMU", timeout_s=300)

    return boot


def _bare_init(tools: ToolRoot) -> bytes:
    source = PROJECT / "ci" / "selfbench" / "bare"
    key = store.digest("bare", (source / "init.c").read_text())

    def make(path: Path) -> None:
        sandbox = Sandbox(tools.root, read_only={"src": source}, writable={"out": path})
        argv = ["gcc", "-O2", "-static", "-o", f"{BIND}/out/init", f"{BIND}/src/init.c"]
        run(sandbox.argv(argv), log=path / "log", doing="compiling the bare init")

    return (store.get("images", key, "the bare init", make) / "init").read_bytes()
