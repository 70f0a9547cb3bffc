# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has come up: its consoles, its kernel log, its clock, and what ends it.

`images.boot` starts one.
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

SSH_S = 30.0  # from the boot's end to an ssh connection, at scale 1
LOG_BYTES = 256 << 20  # of a kernel log; a port takes 1 MB/s
EXIT_S = 2.0  # QEMU ends within this after a panic
DUMP_S = 600.0  # QEMU has written the guest's memory within this
MOST_STRETCHED = 24.0  # twice of what lockdep takes: a kernel that delays its boot gets no more
QUICK_BOOT_S = 0.2  # what a guest of scale 1 (KVM, a plain kernel) takes to come up
# the reasons of QMP's SHUTDOWN event that are the guest's own doing
_LEFT = {"guest-reset": "rebooted", "guest-shutdown": "powered off"}


class Diagnosis(Protocol):
    """How to find out what is wrong with a guest: the functions of images.machine.diagnose."""

    def dump_blocked_tasks(self, machine: Machine, /) -> str:
        """Has the kernel list its stuck tasks; the last lines of its log, for errors."""

    def examine(self, machine: Machine, console: Console, why: str, /) -> GuestError:
        """Secures evidence of a silent guest; returns the error that says what is wrong."""


@dataclass(kw_only=True)
class Machine:
    """A guest that has come up."""

    setup: VmConfig
    log: KernelLog
    events: Events
    qmp: Monitor
    verdict: GuestError | None = None  # what was found wrong with it for good
    pace: Pace
    diagnosis: Diagnosis
    boot_s: float = 0.0  # from QEMU's start to the console's greeting
    effort_s: float = 0.0  # of that, what a host with nothing else to do would have taken
    _qemu: Started
    _consoles: list[Console] = field(default_factory=list)

    @property
    def shell(self) -> socket.socket | None:
        """The shell port, in a guest that was started with one."""
        return self._qemu.shell

    @property
    def ssh_port(self) -> int | None:
        """The loopback port of a guest that was started with ssh."""
        return self._qemu.ssh_port

    @property
    def keys(self) -> ssh.Keys | None:
        """The ssh keys of a guest that was started with ssh."""
        return self._qemu.keys

    @cached_property
    def serial(self) -> Console:
        """The serial console."""
        from blockyard.images.console.console import Console  # while QEMU starts

        shared = self.setup.serial_port == "shared"
        transport = SharedTransport if shared else SocketTransport
        return Console("serial", transport(self._qemu.console), self)

    @property
    def scale(self) -> float:
        """How much longer than a quick guest's its deadlines are.

        Measured by what its own boot took of the host, so that a debug kernel or an emulated
        processor is not taken for a hang; at least the accelerator's. What else the host does
        is not in it: see `time`.
        """
        least = self.setup.accelerator.scale
        return min(max(least, self.effort_s / QUICK_BOOT_S), MOST_STRETCHED * least)

    def time(self) -> float:
        """The clock that deadlines are counted on, see images.machine.pace."""
        return self.pace.now()

    def stalled_s(self) -> float:
        """For how many seconds so far QEMU waited for a disk of the host's, see machine.pace."""
        return self.pace.stalled_s()

    @property
    def directory(self) -> Path:
        """Where its logs are, and what of its output is too long for memory."""
        return self.setup.directory

    def watch(self) -> None:
        """Raises what is wrong with the guest, when it is gone or known to hang."""
        if self.verdict is not None:
            raise self.verdict
        self.events.look()
        ended = self._qemu.process.poll() is not None
        if self.log.size > LOG_BYTES:
            self.kill_qemu()
            told = f"the guest wrote more than {LOG_BYTES >> 20} MiB into its kernel log"
            self.verdict = GuestShutdown(told, kernel_log=self.log.tail(), log=self.log.path)
        elif damage := self.log.damage():
            self.verdict = self._damaged(damage)
        elif self.log.panicked():
            self._after_panic()
            self.verdict = GuestPanicked(
                "the guest's kernel panicked", kernel_log=self.log.tail(), log=self.log.path
            )
        elif ended:
            self.events.look()  # it may have told why
            self.verdict = self._ended()
        if self.verdict is not None:
            raise self.verdict

    def _damaged(self, line: str) -> GuestError:
        """What is wrong with a guest that cannot read one of its images.

        One that powers off cannot, either: that is waited for.
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
            hint=f"the file is damaged: remove {image.parent}, and it is made again",
            log=self.log.path,
        )

    def _after_panic(self) -> None:
        """Waits for the rest of the log; takes the memory dump that was asked for."""
        deadline = time.monotonic() + EXIT_S
        while self._qemu.process.poll() is None and time.monotonic() < deadline:
            self.events.look()
            if self.setup.dump and self.events.last("SHUTDOWN"):
                self._dump()
                return
            time.sleep(0.01)

    def _dump(self) -> None:
        """QEMU is paused where the panicked guest wanted to reboot."""
        with contextlib.suppress(QmpError, QmpTimeout):
            target = f"file:{RUN}/{MEMORY_DUMP}"
            wanted = {"paging": False, "protocol": target}
            self.qmp.execute("dump-guest-memory", wanted, DUMP_S)
        self.kill_qemu()

    def _ended(self) -> GuestError:
        shutdown = self.events.last("SHUTDOWN")
        reason = shutdown.data["reason"] if shutdown else ""
        kernel_log, log = self.log.tail(), self.log.path
        if what := _LEFT.get(reason):
            told = f"the guest {what} while it was needed"
            return GuestShutdown(told, kernel_log=kernel_log, log=log)
        errors = tail(self.setup.directory / QEMU_LOG)
        how = self._qemu.process.returncode
        if how == 1 and not self.log.size:
            why = errors.strip().splitlines()[-1:] or ["it says nothing"]
            reason = why[0].strip().removeprefix(f"{PROGRAM}: ")
            return QemuDied(
                f"QEMU does not start this guest: {reason}",
                hint=f"topology {self.setup.topology.name}",
                log=self.setup.directory / QEMU_LOG,
            )
        told = f"QEMU ended with {how} while the guest was needed\n{errors}"
        return QemuDied(told, kernel_log=kernel_log, log=log)

    def kernel_log_tail(self) -> str:
        """The last lines of the kernel's log."""
        return self.log.tail()

    def dump_blocked_tasks(self) -> str:
        """Has the kernel list its stuck tasks; the last lines of its log, for errors."""
        return self.diagnosis.dump_blocked_tasks(self)

    def examine(self, console: Console, why: str) -> GuestError:
        """Secures evidence of a silent guest; returns the error that says what is wrong."""
        return self.diagnosis.examine(self, console, why)

    def send_sysrq(self, key: str) -> None:
        """A break and a key on the port of the kernel log. Raises what QMP raises."""
        shared = self.setup.serial_port == "shared"
        self.qmp.command("chardev-send-break", id="console" if shared else "log")
        if shared:
            try:
                self._qemu.console.send(key.encode())
            except BlockingIOError:
                raise QmpTimeout("the port of the kernel log takes nothing") from None
        else:
            os.write(self._qemu.sysrq, key.encode())

    def console(self, name: str) -> Console:
        """The console of that name: ``serial``, or ``ssh`` (connected when first asked for)."""
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
        """A new ssh connection to the guest."""
        from blockyard.images.console import ssh

        keys, port = self.keys, self.ssh_port
        if keys is None or port is None:
            raise Failure("this guest was started without ssh")
        return ssh.connect(port, keys, self.watch, SSH_S * self.scale)

    def close_consoles(self) -> None:
        """Gives the connections back that were made on the way."""
        for console in self._consoles:
            console.close()

    def kill_qemu(self) -> None:
        """Ends QEMU at once, as a power cut would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._qemu.process.pid, signal.SIGKILL)
        self._qemu.process.wait()
