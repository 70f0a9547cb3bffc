# SPDX-License-Identifier: GPL-2.0-or-later
"""labgrid's side of a comparison, run by the Python of the tool root and not part of Blockyard.

Arguments: the descriptor of a socket to a guest's shell, a file in the guest, how many bytes of it
to print. Prints what labgrid's ShellDriver took, as JSON: wall seconds, CPU seconds.
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
    """A console on a socket that is there already; reads and writes are QEMUDriver's own."""

    descriptor = attr.ib()
    txdelay = attr.ib(default=0.0)
    _read = QEMUDriver._read
    _write = QEMUDriver._write

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        self._clientsocket = socket.socket(fileno=self.descriptor)


def main() -> None:
    """One command, timed without the login."""
    descriptor, file, size = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    target = Target("guest")
    SocketDriver(target, "console", descriptor=descriptor)
    shell = ShellDriver(target, "shell", prompt=PROMPT, login_prompt="login: ", username="root")
    target.activate(shell)
    begun, cpu = time.perf_counter(), time.process_time()
    lines, _, code = shell.run(f"head -c {size} {file}", timeout=TIMEOUT_S)
    elapsed = time.perf_counter() - begun, time.process_time() - cpu
    if code or len("".join(lines)) != size:
        sys.exit(f"exit code {code}, {len(''.join(lines))} bytes of {size}")
    print(json.dumps(elapsed))


if __name__ == "__main__":
    main()
