# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest from its start to its end.

`machine` is a context manager: when it is left, QEMU is gone and its scratch files with it,
however it was left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from blockyard.images.console.serial import SocketTransport
from blockyard.images.console.shared_port import SharedTransport
from blockyard.images.errors import (
    BootTimeout,
    ConsoleLost,
    GuestError,
    GuestPanicked,
    GuestShutdown,
    ImageDamaged,
    QemuDied,
)
from blockyard.images.log.kernel_log import KernelLog
from blockyard.images.machine import snapshot, tsc
from blockyard.images.machine.launch import QEMU_LOG, Started, launch
from blockyard.images.machine.pace import Pace
from blockyard.images.machine.qemu import KERNEL_LOG, MEMORY_DUMP, PROGRAM, RESUME, RUN
from blockyard.images.machine.qmp import Events, Monitor, QmpError, QmpTimeout
from blockyard.images.machine.scratch import scratch
from blockyard.images.machine.vm_config import VmConfig
from blockyard.kernel.host.decoding import BROKEN_FILE
from blockyard.kernel.host.errors import Failed, UserError
from blockyard.kernel.host.process import tail
from blockyard.kernel.host.progress import note

if TYPE_CHECKING:
    import paramiko

    from blockyard.images.console import ssh
    from blockyard.images.console.console import Console
    from blockyard.images.machine.snapshot import Snapshot

BOOT_S = 15.0  # a guest that comes up says something within this, at accelerator scale 1
BOOT_STEPS = 8  # and answers after so many of these,
TRIAL_STEPS = 2  # or so many where an accelerator is on trial (at less than scale 1)
SSH_S = 30.0  # from then to an ssh connection
LOG_BYTES = 256 << 20  # of a kernel log; a port takes 1 MB/s
EXIT_S = 2.0  # QEMU ends within this after a panic
DUMP_S = 600.0  # QEMU has written the guest's memory within this
MOST_STRETCHED = 24.0  # twice of what lockdep takes: a kernel that delays its boot gets no more
QUICK_BOOT_S = 0.2  # what a guest of scale 1 (KVM, a plain kernel) takes to come up
# the reasons of QMP's SHUTDOWN event that are the guest's own doing
_LEFT = {"guest-reset": "rebooted", "guest-shutdown": "powered off"}


@dataclass(kw_only=True)
class Machine:
    """A guest that has come up."""

    setup: VmConfig
    log: KernelLog
    events: Events
    qmp: Monitor
    verdict: GuestError | None = None  # what was found wrong with it for good
    pace: Pace
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
        """See images.machine.diagnose."""
        from blockyard.images.machine import diagnose

        return diagnose.dump_blocked_tasks(self)

    def examine(self, console: Console, why: str) -> GuestError:
        """See images.machine.diagnose."""
        from blockyard.images.machine import diagnose

        return diagnose.examine(self, console, why)

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
            raise Failed("this guest was started without ssh")
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


@contextlib.contextmanager
def machine(setup: VmConfig) -> Iterator[Machine]:
    """Boots a guest, or starts it from a snapshot; the block runs when its serial console answers.

    Raises GuestPanicked, QemuDied, BootTimeout or ImageDamaged when it does not come up.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(scratch(setup.directory))
        saved = _snapshot(setup)
        guest = _woken(setup, stack, saved) if saved else None
        yield guest or _booted(setup, stack)


def _booted(setup: VmConfig, stack: contextlib.ExitStack) -> Machine:
    begun = time.monotonic()
    guest = _started(setup, stack, None)
    _wait_for_boot(guest)
    guest.boot_s = time.monotonic() - begun
    guest.effort_s = _effort_s(guest.pace)
    if setup.accelerator.name == "tcg":
        tsc.note(guest.log.path)
    if setup.start == "fastest" and not snapshot.obstacle(setup):
        snapshot.note_boot(setup)
    return guest


def _woken(setup: VmConfig, stack: contextlib.ExitStack, saved: Snapshot) -> Machine | None:
    """A guest that starts from a snapshot; None when it does not, and the snapshot is dropped."""
    try:
        begun = time.monotonic()
        times = saved.times
        with contextlib.ExitStack() as trial:
            guest = _started(setup, trial, saved)
            guest.boot_s = times.boot_s
            guest.effort_s = times.effort_s  # the measure of this guest's speed
            snapshot.wake(guest)
            saved.record(time.monotonic() - begun)
            if (keys := guest.keys) is not None:
                from blockyard.images.console import ssh

                ssh.start(guest.serial, keys)
            stack.push(trial.pop_all())
            return guest
    except (Failed, *BROKEN_FILE) as error:
        why = getattr(error, "what", None) or str(error)
        reason = why.strip().splitlines()[-1].strip()
        note(f"a saved guest does not start and is dropped, this one boots: {reason}")
        saved.drop()
        return None


def _effort_s(pace: Pace) -> float:
    """What the guest's start would have taken, had it not waited for processors and disks."""
    computed_s = pace.cpu_s()
    return pace.now() if computed_s is None else min(computed_s, pace.now())


def _snapshot(setup: VmConfig) -> Snapshot | None:
    """What the guest starts from; None: it boots."""
    if setup.start == "boot":
        return None
    if problem := snapshot.obstacle(setup):
        if setup.start == "snapshot":
            raise UserError(f"this guest cannot start from a snapshot: {problem}")
        return None
    if setup.start == "fastest" and not snapshot.is_due(setup):
        return None
    saved = snapshot.snapshot(setup, machine)
    return saved if setup.start == "snapshot" or saved.pays else None


def _wait_for_boot(guest: Machine) -> None:
    """A guest that boots says so, line by line: it may take its time, but not stand still."""
    scale = guest.setup.accelerator.scale
    step_s, steps = BOOT_S * scale, BOOT_STEPS if scale >= 1 else TRIAL_STEPS
    begun = guest.time()
    try:
        guest.serial.wait_ready(step_s, lambda: guest.log.size, steps)
        guest.watch()  # it may have come up without all of its files
    except ConsoleLost:
        told = f"the guest did not come up in {guest.time() - begun:.0f} s"
        raise BootTimeout(
            f"kernel {guest.setup.kernel.info.name}: {told}",
            kernel_log=guest.log.tail(),
            log=guest.log.path,
        ) from None


def _started(setup: VmConfig, stack: contextlib.ExitStack, saved: Snapshot | None) -> Machine:
    closing = stack.enter_context(contextlib.ExitStack())  # after QEMU has ended
    started = launch(setup, stack, saved)
    guest = Machine(
        setup=setup,
        log=KernelLog(setup.directory / KERNEL_LOG, shared=setup.serial_port == "shared"),
        events=Events(started.events, RESUME if saved else ()),
        qmp=Monitor(started.monitor),
        pace=Pace(started.process.pid),
        _qemu=started,
    )
    closing.callback(guest.qmp.close)
    stack.callback(guest.close_consoles)
    return guest
