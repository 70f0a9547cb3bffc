# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's machine protocol (QMP): events and commands.

There are two monitors. Events come over the first: it is read at every check of the machine, so it
has to be fast, and lines of JSON are parsed here. Commands go over the second with the qemu.qmp
library, which is slow to import and is loaded for the first command.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from blockyard.images.hardware.qapi import Command
from blockyard.kernel.host.errors import Failure

if TYPE_CHECKING:
    import asyncio

    from qemu.qmp import QMPClient

T = TypeVar("T")
_log = logging.getLogger(__name__)
# The library raises its errors; without a handler it would print them as well.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

ANSWER_S = 10.0  # QEMU answers on its monitor within this, whatever the guest does


class QmpError(Failure):
    """QEMU refused a command."""


class QmpTimeout(Failure):
    """QEMU did not answer a command, or has closed its monitor."""


class Event(msgspec.Struct, frozen=True):
    """An event; QEMU's QMP reference explains names and data."""

    event: str
    data: dict[str, object] = {}


class Events:
    """The events of one QEMU, in the order of their arrival.

    first: commands to send at the start; QEMU runs them as soon as it is up.
    """

    def __init__(self, connection: socket.socket, first: Sequence[Command] = ()) -> None:
        # QEMU sends no events before qmp_capabilities
        for name, arguments in [("qmp_capabilities", {}), *first]:
            _log.debug("> %s %s", name, arguments)
            message = msgspec.json.encode({"execute": name, "arguments": arguments})
            connection.sendall(message + b"\n")
        connection.setblocking(False)
        self._socket = connection
        self._held = b""
        self.seen: list[Event] = []

    def look(self) -> None:
        """Reads what has arrived; raises QmpError when one of the first commands failed."""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:  # no data, or QEMU has ended
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
        """The last event of that name; None before the first."""
        return next((event for event in reversed(self.seen) if event.event == name), None)


class Monitor:
    """Sends commands to one QEMU."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._client: QMPClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def command(self, name: str, timeout_s: float = ANSWER_S, /, **arguments: object) -> object:
        """QEMU's answer to a command, decoded from JSON.

        Underscores in names of arguments become hyphens, as QMP has them. Raises QmpError with
        QEMU's reason when it refuses the command, QmpTimeout when it does not answer in time.
        """
        hyphenated = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.execute(name, hyphenated, timeout_s)

    def query(self, name: str, kind: type[T], **arguments: object) -> T:
        """QEMU's answer to a command as a value of a type; raises as `command` does.

        Raises msgspec.ValidationError for an answer that is not of this type.
        """
        return msgspec.convert(self.command(name, **arguments), kind)

    def execute(
        self, name: str, arguments: dict[str, object], timeout_s: float = ANSWER_S
    ) -> object:
        """Like `command`, with the names of the arguments unchanged."""
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
            raise QmpTimeout(f"QEMU has closed its monitor: {error}") from None

    def human(self, line: str) -> str:
        """The output of a command of QEMU's human monitor (HMP), such as ``info registers -a``."""
        return str(self.command("human-monitor-command", command_line=line))

    def close(self) -> None:
        """Closes the connection; call it after QEMU has ended."""
        if self._loop is None:
            return
        import asyncio

        from qemu.qmp import QMPError

        if self._client is not None:
            with contextlib.suppress(QMPError, OSError, EOFError, TimeoutError):
                self._loop.run_until_complete(asyncio.wait_for(self._client.disconnect(), 1.0))
        self._loop.close()
