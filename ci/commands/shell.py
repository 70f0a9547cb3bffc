# SPDX-License-Identifier: GPL-2.0-or-later
"""`./inv boot`: boots a guest and runs one command, or a shell on the user's terminal."""

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
LONGER = "--blocked SECONDS lets a command block for longer; 0: until --timeout"


class Stream(Protocol):
    """The methods that a socket and an ssh channel share."""

    def fileno(self) -> int:
        """The descriptor, for select."""

    def recv(self, size: int, /) -> bytes:
        """Reads up to `size` bytes; b"" at the end."""

    def sendall(self, data: bytes, /) -> None:
        """Writes all of `data`."""


@dataclass(frozen=True)
class GuestOptions:
    """Options of `./inv boot` for the guest; see images.machine.vm_config.VmConfig."""

    topology: str = "default"
    start: str = "boot"
    monitor: bool = False
    gdb: bool = False
    dump: bool = False
    raw: bool = False  # print the command's output unchanged, also on a terminal
    # seconds that a command may block in the kernel of an idle guest; 0: until its timeout
    blocked_s: float = 20.0


def boot(
    spec: KernelSpec,
    command: str,
    console: str,
    accel: str,
    timeout_s: float,
    options: GuestOptions,
) -> int:
    """Boots a kernel and runs `command`, or a shell when it is empty; returns the exit code.

    The command gets our standard input, unless that is a terminal. Raises UsageError for an unknown
    console or a shell without a terminal, GuestError when the guest fails.
    """
    if console not in CONSOLES:
        raise unknown("console", console, CONSOLES)
    if not (options.blocked_s >= 0):
        raise UsageError(
            f"invalid --blocked {options.blocked_s:g}: expected seconds, 0 for no limit"
        )
    if not command and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "a shell needs a terminal on standard input and output",
            hint="./inv boot --run 'COMMAND' runs one command without one",
        )
    hardware = topologies.load(options.topology)
    start = start_named(options.start)
    env = boot_env.ready(spec, accel)
    piped = stdin.begin() if command else None
    if lacking := qemu_features.missing_feature(hardware, env.tools):
        raise Failure(lacking)
    with boot_env.guest_directory() as folder:
        over_ssh = console == "ssh"
        setup = env.setup(
            folder,
            topology=hardware,
            ssh=over_ssh,
            shell=not command and not over_ssh,
            monitor=options.monitor,
            gdb=options.gdb,
            dump=options.dump,
            start=start,
        )
        with boot_guest(setup) as guest:
            _print_ports(setup)
            if command:
                data = piped.data() if piped else b""
                return run_command(guest, command, console, timeout_s, data, options)
            accelerator = env.accelerator
            note(
                f"{env.kernel.info.release} over {console}, {accelerator.name} "
                f"({accelerator.reason}); Ctrl-] leaves and ends the guest"
            )
            with _shell(guest, console) as stream:
                _connect(stream)
            guest.watch()  # raises if the guest died meanwhile
    return 0


def _print_ports(setup: VmConfig) -> None:
    """Prints how to reach the monitor and gdb, and where a dump goes."""
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
    guest: Machine, command: str, console: str, timeout_s: float, data: bytes, options: GuestOptions
) -> int:
    """Runs `command` with `data` as its input, prints its output, returns its exit code.

    Raises the errors of images.console.console.Console.run.
    """
    blocked_s = options.blocked_s or math.inf
    try:
        result = guest.console(console).run(command, timeout_s, stdin=data, blocked_s=blocked_s)
    except CommandHung as hung:
        hung.hint = LONGER
        raise
    pass_on(result.data, raw=options.raw)
    return result.exit_code


def pass_on(data: bytes, *, raw: bool) -> None:
    """Prints the output of a guest's command. raw: unchanged in any case.

    A file or a pipe gets the bytes unchanged. On a terminal, and on a pipe in CI, control
    characters are escaped, since a terminal or a CI runner would interpret them.
    """
    kind = os.fstat(sys.stdout.fileno()).st_mode
    in_ci = bool(os.environ.get("CI")) and not stat.S_ISREG(kind)
    if raw or not (in_ci or sys.stdout.isatty()):
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    text = data.decode(errors="backslashreplace")
    # lines of a serial port end in \r\n
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
    guest.shell.sendall(b"\n")  # the first prompt may have been lost
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
                except OSError:  # QEMU died, which watch() reports
                    return
                if not data:
                    return
                os.write(sys.stdout.fileno(), data)
            if terminal in readable:
                typed = os.read(terminal, 1024)
                if not typed or LEAVE in typed:
                    return
                with contextlib.suppress(BrokenPipeError):  # watch() reports why it ended
                    stream.sendall(typed)
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        note("")
