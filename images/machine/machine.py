# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest: its consoles, kernel log and clock, and the watch for its failures.

`images.boot` starts it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from blockyard.images.console.serial import SocketTransport
from blockyard.images.console.shared_port import SharedTransport
from blockyard.images.errors import (
    GuestError,
    GuestPanicked,
    GuestShutdown,
    ImageDamaged,
    QemuDied,
)
from blockyard.images.log.kernel_log import KernelLog
from blockyard.images.machine.pace import Pace
from blockyard.images.machine.ports import QEMU_LOG, Started
from blockyard.images.machine.qemu import MEMORY_DUMP, PROGRAM, RUN
from blockyard.images.machine.qmp import Events, Monitor, QmpError, QmpTimeout
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host.errors import Failure
from blockyard.kernel.host.process import tail

if TYPE_CHECKING:
    import paramiko

    from blockyard.images.console import ssh
    from blockyard.images.console.console import Console

SSH_S = 30.0  # from the end of the boot to an ssh connection, at scale 1
LOG_BYTES = 256 << 20  # limit of a kernel log; a serial port carries 1 MB/s
EXIT_S = 2.0  # QEMU ends within this after a panic
DUMP_S = 600.0  # QEMU writes a memory dump within this
MOST_STRETCHED = 24.0  # twice the factor of a lockdep kernel; limits what a slow boot can gain
QUICK_BOOT_S = 0.2  # boot time of a guest of scale 1: KVM, a kernel without debugging
# QMP's reasons of a SHUTDOWN event that the guest itself caused
_GUEST_ACTIONS = {"guest-reset": "rebooted", "guest-shutdown": "powered off"}


class Diagnosis(Protocol):
    """The functions of images.machine.diagnose, which imports this module."""

    def dump_blocked_tasks(self, machine: Machine, /) -> str:
        """Makes the kernel log its blocked tasks; the last lines of the log, for errors."""

    def examine(self, machine: Machine, console: Console, why: str, /) -> GuestError:
        """Diagnoses a silent guest and saves evidence; the error to raise."""


@dataclass(kw_only=True)
class Machine:
    """A running guest."""

    setup: VmConfig
    log: KernelLog
    events: Events
    qmp: Monitor
    verdict: GuestError | None = None  # set when the guest has failed for good
    pace: Pace
    diagnosis: Diagnosis
    boot_s: float = 0.0  # from QEMU's start to the console's greeting
    effort_s: float = 0.0  # the same on an idle host: without waiting for CPUs and disks
    _qemu: Started
    _consoles: list[Console] = field(default_factory=list)

    @property
    def shell(self) -> socket.socket | None:
        """The socket of the shell port; None in a guest that was started without."""
        return self._qemu.shell

    @property
    def ssh_port(self) -> int | None:
        """The loopback port that leads to sshd; None in a guest that was started without ssh."""
        return self._qemu.ssh_port

    @property
    def keys(self) -> ssh.Keys | None:
        """The ssh keys; None in a guest that was started without ssh."""
        return self._qemu.keys

    @cached_property
    def serial(self) -> Console:
        """The serial console; made on first use."""
        from blockyard.images.console.console import Console  # imported while QEMU starts

        shared = self.setup.serial_port == "shared"
        transport = SharedTransport if shared else SocketTransport
        return Console("serial", transport(self._qemu.console), self)

    @property
    def scale(self) -> float:
        """The factor for this guest's deadlines; 1 for a KVM guest without kernel debugging.

        Measured by the effort of its own boot, so that a debug kernel or an emulated CPU does not
        look like a hang; at least the accelerator's factor. Load on the host is not included: see
        `time`.
        """
        least = self.setup.accelerator.scale
        return min(max(least, self.effort_s / QUICK_BOOT_S), MOST_STRETCHED * least)

    def time(self) -> float:
        """The clock of deadlines, in seconds; see images.machine.pace."""
        return self.pace.now()

    def stalled_s(self) -> float:
        """Seconds so far in which QEMU waited for a disk of the host; see images.machine.pace."""
        return self.pace.stalled_s()

    @property
    def directory(self) -> Path:
        """The folder with its logs, and with output that is too long for memory."""
        return self.setup.directory

    def watch(self) -> None:
        """Raises a GuestError when the guest has ended, panicked, or is known to hang."""
        if self.verdict is not None:
            raise self.verdict
        self.events.look()
        has_ended = self._qemu.process.poll() is not None
        if self.log.size > LOG_BYTES:
            self.kill_qemu()
            problem = f"the guest wrote more than {LOG_BYTES >> 20} MiB into its kernel log"
            self.verdict = GuestShutdown(problem, kernel_log=self.log.tail(), log=self.log.path)
        elif damage := self.log.damage():
            self.verdict = self._damaged(damage)
        elif self.log.panicked():
            self._after_panic()
            self.verdict = GuestPanicked(
                "the guest's kernel panicked", kernel_log=self.log.tail(), log=self.log.path
            )
        elif has_ended:
            self.events.look()  # the reason may have arrived
            self.verdict = self._ended()
        if self.verdict is not None:
            raise self.verdict

    def _damaged(self, line: str) -> GuestError:
        """The error of a guest that cannot read one of its images.

        A guest that powers off cannot either, so wait for that first.
        """
        deadline = self.time() + EXIT_S * self.setup.accelerator.scale
        while self._qemu.process.poll() is None and self.time() < deadline:
            self.events.look()
            time.sleep(0.02)
        if self._qemu.process.poll() is not None and not self.log.panicked():
            self.events.look()
            return self._ended()
        images = {"vda": self.setup.files.root, "vdb": self.setup.files.modules}
        image = next(path for name, path in images.items() if name in line)
        return ImageDamaged(
            f"the guest cannot read {image}: {line}",
            hint=f"the file is damaged: remove {image.parent} to have it made again",
            log=self.log.path,
        )

    def _after_panic(self) -> None:
        """Waits for the rest of the log; writes a memory dump if one was requested."""
        deadline = time.monotonic() + EXIT_S
        while self._qemu.process.poll() is None and time.monotonic() < deadline:
            self.events.look()
            if self.setup.dump and self.events.last("SHUTDOWN"):
                self._dump()
                return
            time.sleep(0.01)

    def _dump(self) -> None:
        """Writes the memory dump; QEMU has paused the panicked guest instead of rebooting it."""
        with contextlib.suppress(QmpError, QmpTimeout):
            target = f"file:{RUN}/{MEMORY_DUMP}"
            arguments = {"paging": False, "protocol": target}
            self.qmp.execute("dump-guest-memory", arguments, DUMP_S)
        self.kill_qemu()

    def _ended(self) -> GuestError:
        """The error of a guest whose QEMU has ended."""
        shutdown = self.events.last("SHUTDOWN")
        reason = str(shutdown.data["reason"]) if shutdown else ""
        kernel_log, log = self.log.tail(), self.log.path
        if what := _GUEST_ACTIONS.get(reason):
            return GuestShutdown(
                f"the guest {what} while it was needed", kernel_log=kernel_log, log=log
            )
        errors = tail(self.setup.directory / QEMU_LOG)
        code = self._qemu.process.returncode
        if code == 1 and not self.log.size:
            why = errors.strip().splitlines()[-1:] or ["it printed no reason"]
            reason = why[0].strip().removeprefix(f"{PROGRAM}: ")
            return QemuDied(
                f"QEMU cannot start this guest: {reason}",
                hint=f"topology {self.setup.topology.name}",
                log=self.setup.directory / QEMU_LOG,
            )
        problem = f"QEMU ended with {code} while the guest was needed\n{errors}"
        return QemuDied(problem, kernel_log=kernel_log, log=log)

    def kernel_log_tail(self) -> str:
        """The last lines of the kernel log."""
        return self.log.tail()

    def dump_blocked_tasks(self) -> str:
        """Makes the kernel log its blocked tasks; the last lines of the log, for errors."""
        return self.diagnosis.dump_blocked_tasks(self)

    def examine(self, console: Console, why: str) -> GuestError:
        """Diagnoses a silent guest and saves evidence; the error to raise."""
        return self.diagnosis.examine(self, console, why)

    def send_sysrq(self, key: str) -> None:
        """Sends a break and a key on the kernel log's port; raises QmpError and QmpTimeout."""
        shared = self.setup.serial_port == "shared"
        self.qmp.command("chardev-send-break", id="console" if shared else "log")
        if shared:
            try:
                self._qemu.console.send(key.encode())
            except BlockingIOError:
                raise QmpTimeout("the kernel log's port does not accept input") from None
        else:
            os.write(self._qemu.sysrq, key.encode())

    def console(self, name: str) -> Console:
        """The console of that name: ``serial``, or ``ssh``, which is connected on first use."""
        if name == "serial":
            return self.serial
        for console in self._consoles:
            if console.name == name:
                return console
        from blockyard.images.console import ssh
        from blockyard.images.console.console import Console

        connection, limit_s = self.connection(), SSH_S * self.scale
        transport = ssh.ChannelTransport(connection, self.watch, limit_s)
        console = Console(name, transport, self)
        try:
            console.wait_ready(limit_s)
        except BaseException:
            console.close()
            raise
        self._consoles.append(console)
        return console

    def connection(self) -> paramiko.Transport:
        """A new ssh connection to the guest; raises Failure when it was started without ssh."""
        from blockyard.images.console import ssh

        keys, port = self.keys, self.ssh_port
        if keys is None or port is None:
            raise Failure("this guest was started without ssh")
        return ssh.connect(port, keys, self.watch, SSH_S * self.scale)

    def close_consoles(self) -> None:
        """Closes the ssh consoles."""
        for console in self._consoles:
            console.close()

    def kill_qemu(self) -> None:
        """Kills QEMU at once, like a power cut."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._qemu.process.pid, signal.SIGKILL)
        self._qemu.process.wait()
