# SPDX-License-Identifier: GPL-2.0-or-later
"""labgrid's side of the comparison; a program for the Python of the tool root.

Arguments: descriptor of a socket to a guest's shell, a file in the guest, number of bytes to print.
Prints the times of labgrid's ShellDriver as JSON: wall seconds, CPU seconds.
"""

from __future__ import annotations

import json
import socket
import sys
import time

import attr  # type: ignore[import-not-found]
from labgrid import Target, target_factory  # type: ignore[import-not-found]
from labgrid.driver import QEMUDriver, ShellDriver  # type: ignore[import-not-found]
from labgrid.driver.common import Driver  # type: ignore[import-not-found]
from labgrid.driver.consoleexpectmixin import (  # type: ignore[import-not-found]
    ConsoleExpectMixin,
)
from labgrid.protocol import ConsoleProtocol  # type: ignore[import-not-found]

PROMPT = r"root@[^ ]*# "
TIMEOUT_S = 280


@target_factory.reg_driver
@attr.s(eq=False)
class SocketDriver(ConsoleExpectMixin, Driver, ConsoleProtocol):  # type: ignore[misc]
    """A console on an open socket, with QEMUDriver's reads and writes."""

    descriptor = attr.ib()
    txdelay = attr.ib(default=0.0)
    _read = QEMUDriver._read
    _write = QEMUDriver._write

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._clientsocket = socket.socket(fileno=self.descriptor)


def main() -> None:
    """Runs one command; its time does not include the login."""
    descriptor, file, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    target = Target("guest")
    SocketDriver(target, "console", descriptor=descriptor)
    shell = ShellDriver(target, "shell", prompt=PROMPT, login_prompt="login: ", username="root")
    target.activate(shell)
    wall, cpu = time.perf_counter(), time.process_time()
    lines, _, code = shell.run(f"head -c {size} {file}", timeout=TIMEOUT_S)
    elapsed = time.perf_counter() - wall, time.process_time() - cpu
    if code or len("".join(lines)) != size:
        sys.exit(f"exit code {code}, {len(''.join(lines))} bytes of {size}")
    print(json.dumps(elapsed))


if __name__ == "__main__":
    main()
