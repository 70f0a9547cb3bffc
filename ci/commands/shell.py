# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest for a person: one command, or a shell on the user's own terminal."""

from __future__ import annotations

import contextlib
import math
import os
import select
import shutil
import socket
import stat
import sys
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from blockyard.ci.commands import stdin
from blockyard.ci.run import boot_env
from blockyard.images.boot import boot as boot_guest
from blockyard.images.console import CONSOLES
from blockyard.images.errors import CommandHung
from blockyard.images.hardware import topologies
from blockyard.images.machine import qemu, qemu_features
from blockyard.images.machine.machine import SSH_S, Machine
from blockyard.images.machine.vm_config import VmConfig, start_named
from blockyard.kernel.host.errors import Failure, UsageError, unknown
from blockyard.kernel.host.progress import note, printable
from blockyard.kernel.spec import KernelSpec

if TYPE_CHECKING:
    import paramiko

LEAVE = b"\x1d"  # Ctrl-], as telnet has it
LONGER = "--blocked SECONDS lets a command wait for longer; 0: until --timeout"


class Stream(Protocol):
    """What both a socket and an ssh channel can do."""

    def fileno(self) -> int:
        """For select."""

    def recv(self, size: int, /) -> bytes:
        """Some bytes; b"" at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Writes everything."""


@dataclass(frozen=True)
class Wanted:
    """What a person may want of a guest besides a console; see images.machine.vm_config.Setup."""

    topology: str = "default"
    start: str = "boot"
    monitor: bool = False
    gdb: bool = False
    dump: bool = False
    raw: bool = False  # the output of a command as it is, on a terminal, too
    # seconds for which a command may wait in the kernel of an idle guest; 0: up to its deadline
    blocked_s: float = 20.0


def boot(
    choice: KernelSpec, command: str, console: str, accel: str, timeout_s: float, wanted: Wanted
) -> int:
    """Boots a kernel and runs `command`, or a shell when it is empty; returns the exit code.

    The command gets what comes on standard input, unless that is a terminal.
    """
    if console not in CONSOLES:
        raise unknown("console", console, CONSOLES)
    if not (wanted.blocked_s >= 0):
        raise UsageError(
            f"invalid --blocked {wanted.blocked_s:g}: expected seconds, 0 for no limit"
        )
    if not command and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a shell needs a terminal on standard input and output",
            hint="./inv boot --run 'COMMAND' runs one command without one",
        )
    hardware = topologies.load(wanted.topology)
    start = start_named(wanted.start)
    ready = boot_env.ready(choice, accel)
    coming = stdin.begin() if command else None
    if lacking := qemu_features.missing_feature(hardware, ready.tools):
        raise Failure(lacking)
    with boot_env.guest_directory() as folder:
        over_ssh = console == "ssh"
        setup = ready.setup(
            folder,
            topology=hardware,
            ssh=over_ssh,
            shell=not command and not over_ssh,
            monitor=wanted.monitor,
            gdb=wanted.gdb,
            dump=wanted.dump,
            start=start,
        )
        with boot_guest(setup) as guest:
            _tell_ports(setup)
            if command:
                given = coming.data() if coming else b""
                return run_command(guest, command, console, timeout_s, given, wanted)
            accelerator = ready.accelerator
            note(
                f"{ready.kernel.info.release} over {console}, {accelerator.name} "
                f"({accelerator.reason}); Ctrl-] leaves and ends the guest"
            )
            with _shell(guest, console) as stream:
                _connect(stream)
            guest.watch()  # a guest that died under the user's hands says so
    return 0


def _tell_ports(setup: VmConfig) -> None:
    """How to reach what was asked for."""
    if setup.monitor:
        path = setup.directory / qemu.MONITOR_SOCKET
        note(f"QEMU's monitor: socat -,rawer,escape=0x1d unix-connect:{path}")
    if setup.gdb:
        symbols = setup.kernel.path / "vmlinux"
        file = f"{symbols} " if symbols.exists() else ""
        note(f"gdb {file}-ex 'target remote {setup.directory / qemu.GDB_SOCKET}'")
        if not file:
            note("--variant symbols builds a kernel whose vmlinux gdb can read")
    if setup.dump:
        note(f"a panic writes {setup.directory / qemu.MEMORY_DUMP}")


def run_command(
    guest: Machine, command: str, console: str, timeout_s: float, given: bytes, wanted: Wanted
) -> int:
    """Runs `command` with `given` as its input, prints its output, returns its exit code.

    Raises what images.console.console.Console.run does.
    """
    blocked_s = wanted.blocked_s or math.inf
    try:
        result = guest.console(console).run(command, timeout_s, stdin=given, blocked_s=blocked_s)
    except CommandHung as hung:
        hung.hint = LONGER
        raise
    pass_on(result.data, raw=wanted.raw)
    return result.exit_code


def pass_on(data: bytes, *, raw: bool) -> None:
    """Prints what a guest's command has printed; raw: as it is, whoever reads it.

    A file, and a pipe, gets the guest's bytes. A terminal would obey them, and so would the runner
    of a CI that reads our output from a pipe: they get text.
    """
    kind = os.fstat(sys.stdout.fileno()).st_mode
    in_ci = bool(os.environ.get("CI")) and not stat.S_ISREG(kind)
    if raw or not (in_ci or sys.stdout.isatty()):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    text = data.decode(errors="backslashreplace")
    # a line of a serial port ends with a carriage return, too
    shown = printable(text.replace("\r\n", "\n"))
    sys.stdout.write(shown)
    sys.stdout.flush()
    if shown != text.replace("\r\n", "\n"):
        note("control characters of the output are shown as \\x1b and the like; --raw keeps them")


@contextlib.contextmanager
def _shell(guest: Machine, console: str) -> Iterator[Stream]:
    size = shutil.get_terminal_size()
    if console == "ssh":
        from blockyard.images.console import ssh

        def start_shell(channel: paramiko.Channel) -> None:
            channel.get_pty(os.environ.get("TERM", "xterm"), size.columns, size.lines)
            channel.invoke_shell()

        limit_s = SSH_S * guest.scale
        channel = ssh.open_channel(guest.connection(), start_shell, guest.watch, limit_s)
        yield channel
        channel.close()
        return
    assert isinstance(guest.shell, socket.socket)
    guest.serial.run(f"stty -F /dev/hvc0 rows {size.lines} cols {size.columns}")
    guest.shell.sendall(b"\n")  # the shell's first prompt may have been printed to nobody
    yield guest.shell


def _connect(stream: Stream) -> None:
    """Copies bytes both ways until Ctrl-] or the stream's end; the terminal is restored."""
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        while True:
            readable, _, _ = select.select([stream, terminal], [], [])
            if stream in readable:
                try:
                    data = stream.recv(1 << 16)
                except OSError:  # QEMU died: the watch says so
                    return
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if terminal in readable:
                typed = os.read(terminal, 1024)
                if not typed or LEAVE in typed:
                    return
                with contextlib.suppress(BrokenPipeError):  # the watch tells why it ended
                    stream.sendall(typed)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        note("")
