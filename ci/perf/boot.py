# SPDX-License-Identifier: GPL-2.0-or-later
"""``boot``: ``./inv boot --run true`` against QEMU with the same kernel and an init that ends it.

Machine, processor model, firmware and command line are the same on both sides.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ci import prepare
from ci.perf import timing
from ci.perf.commands import inv
from ci.perf.timing import Subject
from ci.perf.values import Measurement
from images import cpio, qemu
from images.topology import DEFAULT
from kernel.host import store
from kernel.host.debian import ToolRoot
from kernel.host.process import run
from kernel.host.sandbox import BIND, Sandbox
from kernel.host.settings import PROJECT

LIMIT = 1.25


def boot(subject: Subject) -> Measurement:
    """From the command to its end, with one command run in the guest."""
    ready = subject.ready
    command = ["boot", *subject.choice.options, "--accel", ready.accelerator.name, "--run", "true"]
    with tempfile.TemporaryDirectory(prefix="blockyard-") as folder:
        bare_boot = _bare_boot(ready, Path(folder))
        pairs = timing.alternate(lambda: inv(command), bare_boot, subject.runs, warm_up=True)
    ours, bare = timing.wall_s(pairs)
    return Measurement(
        name="boot",
        unit="s",
        ours=ours,
        bare=bare,
        against="QEMU, an init that powers off",
        ratio=True,
        limit=LIMIT,
    )


def _bare_boot(ready: prepare.Ready, folder: Path) -> Callable[[], None]:
    initramfs = folder / "initramfs"
    initramfs.write_bytes(cpio.archive([cpio.File("init", _bare_init(ready.tools), 0o755)]))
    sandbox = Sandbox(
        ready.tools.root,
        read_only={"kernel": ready.kernel.image, "initrd": initramfs},
        writable={"run": folder},
        devices=["/dev/kvm"] if ready.accelerator.name == "kvm" else [],
    )
    argv = sandbox.argv(
        [
            *qemu.machine_arguments(DEFAULT, ready.accelerator.name),
            *("-append", " ".join(qemu.COMMAND_LINE)),
            *qemu.kernel_log_arguments(),
        ]
    )

    def boot() -> None:
        run(argv, log=folder / "qemu.log", doing="booting bare QEMU", timeout_s=300)

    return boot


def _bare_init(tools: ToolRoot) -> bytes:
    source = PROJECT / "ci" / "bare"
    key = store.digest("bare", (source / "init.c").read_text())

    def make(path: Path) -> None:
        sandbox = Sandbox(tools.root, read_only={"src": source}, writable={"out": path})
        argv = ["gcc", "-O2", "-static", "-o", f"{BIND}/out/init", f"{BIND}/src/init.c"]
        run(sandbox.argv(argv), log=path / "log", doing="compiling the bare init")

    return (store.get("images", key, "the bare init", make) / "init").read_bytes()
