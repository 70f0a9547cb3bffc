# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's machine protocol: its events while anything waits, and commands when one is needed.

There are two monitors. One tells events; it is read on every look at the machine, so it is no more
than lines of JSON. Commands go over the other with the qemu.qmp library, which takes long to import
and is connected with the first command.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from blockyard.images.hardware.qapi import Command
from blockyard.kernel.host.errors import Failure

if TYPE_CHECKING:
    import asyncio

    from qemu.qmp import QMPClient

_log = logging.getLogger(__name__)
# The library's errors reach us as exceptions; without a handler they would be printed as well.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

ANSWER_S = 10.0  # QEMU answers its monitor within this, whatever the guest does


class QmpError(Failure):
    """QEMU refused a command."""


class QmpTimeout(Failure):
    """QEMU does not answer."""


class Event(msgspec.Struct, frozen=True):
    """One event; names and data are those of QEMU's QMP reference."""

    event: str
    data: dict[str, Any] = {}


class Events:
    """The events of one QEMU, in the order they came.

    first: commands that QEMU is given as soon as it is there.
    """

    def __init__(self, connection: socket.socket, first: Sequence[Command] = ()) -> None:
        # QEMU is silent before it has heard this
        for name, arguments in [("qmp_capabilities", {}), *first]:
            _log.debug("> %s %s", name, arguments)
            message = msgspec.json.encode({"execute": name, "arguments": arguments})
            connection.sendall(message + b"\n")
        connection.setblocking(False)
        self._socket = connection
        self._held = b""
        self.seen: list[Event] = []

    def look(self) -> None:
        """Takes in what has come since the last look; Refused for one of the first commands."""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:  # nothing there, or QEMU is gone
                return
            if not data:
                return
            *lines, self._held = (self._held + data).split(b"\n")
            for line in lines:
                _log.debug("< %s", line.decode(errors="replace").rstrip())
                message = msgspec.json.decode(line)
                if "error" in message:
                    raise QmpError(f"QEMU refused a command: {message['error'].get('desc')}")
                if "event" in message:
                    self.seen.append(msgspec.convert(message, Event))

    def last(self, name: str) -> Event | None:
        """The last event of that name."""
        return next((one for one in reversed(self.seen) if one.event == name), None)


class Monitor:
    """Commands to one QEMU."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._client: QMPClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def command(self, name: str, timeout_s: float = ANSWER_S, /, **arguments: object) -> Any:
        """QEMU's answer to a command.

        An underscore in an argument's name stands for the hyphen that QMP has there. Raises
        Refused with QEMU's reason, Silent when there is no answer in time.
        """
        wanted = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.execute(name, wanted, timeout_s)

    def execute(self, name: str, arguments: dict[str, object], timeout_s: float = ANSWER_S) -> Any:
        """The same with the arguments as they are."""
        import asyncio

        from qemu.qmp import ExecuteError, QMPClient, QMPError

        async def ask() -> object:
            if self._client is None:
                client = QMPClient()
                await client.connect(self._socket)
                self._client = client
            answer = await self._client.execute(name, arguments)
            _log.debug("< %s", answer)
            return answer

        _log.debug("> %s %s", name, arguments)
        self._loop = self._loop or asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(asyncio.wait_for(ask(), timeout_s))
        except ExecuteError as error:
            raise QmpError(f"QEMU refused {name}: {error}") from None
        except TimeoutError:
            raise QmpTimeout(f"QEMU did not answer {name} within {timeout_s:.0f} s") from None
        except (QMPError, OSError, EOFError) as error:
            raise QmpTimeout(f"QEMU's monitor is gone: {error}") from None

    def human(self, line: str) -> str:
        """A command of QEMU's monitor for people."""
        return str(self.command("human-monitor-command", command_line=line))

    def close(self) -> None:
        """Gives the connection back; QEMU has ended by then."""
        if self._loop is None:
            return
        import asyncio

        from qemu.qmp import QMPError

        if self._client is not None:
            with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
                self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 1.0))
        self._loop.close()
