# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's monitor protocol, against a socket that plays QEMU."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from blockyard.images.machine.qmp import Events, Monitor, QmpError, QmpTimeout

GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 0}}, "capabilities": []}}
SHUTDOWN = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}, "timestamp": {}}


def line(message: object) -> bytes:
    return json.dumps(message).encode() + b"\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    client, qemu = socket.socketpair()
    yield client, qemu
    client.close()
    qemu.close()


Pair = tuple[socket.socket, socket.socket]


class TestEvents:
    def test_capabilities_are_negotiated_at_once(self, pair: Pair) -> None:
        Events(pair[0])
        assert json.loads(pair[1].recv(1000)) == {"execute": "qmp_capabilities", "arguments": {}}

    def test_event_in_two_pieces_is_joined(self, pair: Pair) -> None:
        events = Events(pair[0])
        stream = line(GREETING) + line({"return": {}}) + line(SHUTDOWN)
        for piece in (stream[:-30], stream[-30:]):
            events.look()
            assert events.last("SHUTDOWN") is None
            pair[1].sendall(piece)
        events.look()
        shutdown = events.last("SHUTDOWN")
        assert shutdown is not None
        assert shutdown.data["reason"] == "guest-reset"

    def test_last_event_of_a_name_is_returned(self, pair: Pair) -> None:
        events = Events(pair[0])
        for name in ("STOP", "RESUME", "STOP"):
            pair[1].sendall(line({"event": name, "data": {"name": len(events.seen)}}))
            events.look()
        assert [event.event for event in events.seen] == ["STOP", "RESUME", "STOP"]
        last = events.last("STOP")
        assert last is not None
        assert last.data["name"] == 2

    def test_closed_socket_has_no_events(self, pair: Pair) -> None:
        events = Events(pair[0])
        pair[1].close()
        events.look()
        assert events.seen == []


def play_qemu(qemu: socket.socket, answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Play QEMU, and return the commands that it received."""
    commands: list[dict[str, Any]] = []
    qemu.sendall(line(GREETING))
    for reply in [{"return": {}}, *answers]:
        commands.append(json.loads(qemu.recv(1 << 16)))  # the client waits for each answer
        number = {"id": commands[-1]["id"]} if "id" in commands[-1] else {}
        qemu.sendall(line({**reply, **number}))
    return commands


class TestCommands:
    def ask(self, pair: Pair, reply: dict[str, Any]) -> object:
        qemu = threading.Thread(target=play_qemu, args=[pair[1], [reply]])
        qemu.start()
        monitor = Monitor(pair[0])
        try:
            return monitor.command("query-status", 30.0)
        finally:
            qemu.join(30)
            pair[1].close()
            monitor.close()

    def test_answer_is_returned(self, pair: Pair) -> None:
        assert self.ask(pair, {"return": {"running": True}}) == {"running": True}

    def test_error_is_raised(self, pair: Pair) -> None:
        with pytest.raises(QmpError, match=r"refused query-status: no such thing"):
            self.ask(pair, {"error": {"class": "GenericError", "desc": "no such thing"}})

    def test_an_answer_of_another_type_is_an_error(self, pair: Pair) -> None:
        qemu = threading.Thread(target=play_qemu, args=[pair[1], [{"return": {"running": 1}}]])
        qemu.start()
        monitor = Monitor(pair[0])
        with pytest.raises(msgspec.ValidationError):
            monitor.query("query-status", dict[str, str])
        qemu.join(30)
        monitor.close()

    def test_missing_greeting_is_a_timeout(self, pair: Pair) -> None:
        monitor = Monitor(pair[0])
        with pytest.raises(QmpTimeout, match="did not answer query-status"):
            monitor.command("query-status", 0.2)
        monitor.close()

    def test_closed_socket_is_a_timeout(self, pair: Pair) -> None:
        monitor = Monitor(pair[0])
        pair[1].close()
        with pytest.raises(QmpTimeout, match="closed its monitor"):
            monitor.command("query-status", 30.0)
        monitor.close()
