# SPDX-License-Identifier: GPL-2.0-or-later
"""The ssh console's transport: one kept connection, one kept channel to the guest program.

Keys for both sides are made for each machine; the guest gets its host key with its initramfs,
so the host is sure whom it talks to. Only the loopback address is ever connected to.
"""

from __future__ import annotations

import io
import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from blockyard.images import cpio
from blockyard.images.console.stream import CHUNK
from blockyard.images.errors import ConsoleLost
from blockyard.kernel.host.settings import PROJECT

if TYPE_CHECKING:
    from blockyard.images.console.console import Console

GUEST_DIR = "/run/blockyard"  # guest.h has the same
AGENT = f"{GUEST_DIR}/agent"
ADDRESS = "10.0.2.15"  # of the guest: QEMU's user network forwards to it
RETRY_S = 0.05
KEEPALIVE_S = 5
WINDOW = 1 << 24  # bytes in flight; the default of 2 MiB stalls a large output


# Its errors reach us as exceptions; without a handler they would be printed as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Keys:
    """The two key pairs of one machine."""

    host: paramiko.PKey
    client: paramiko.PKey
    host_private: bytes = field(repr=False)  # as sshd reads it

    def files(self) -> list[cpio.File]:
        """What sshd needs in the guest (see guest/init.c)."""
        authorized = f"{self.client.get_name()} {self.client.get_base64()}\n".encode()
        start = (PROJECT / "images" / "guest" / "start-ssh").read_bytes()
        return [
            cpio.File("ssh/host_key", self.host_private, 0o600),
            cpio.File("ssh/authorized_keys", authorized, 0o600),
            cpio.File("ssh/start-ssh", start, 0o755),
        ]

    def initramfs(self) -> bytes:
        """The cpio archive that brings them into a guest that boots."""
        return cpio.archive(self.files())


def start(serial: Console, keys: Keys) -> None:
    """Starts sshd in a running guest, as init does in one that boots with ssh.

    The guest has not seen its network device yet.
    """
    for file in keys.files():
        serial.put(file.data, f"{GUEST_DIR}/{PurePath(file.name).name}")
    serial.check(f"""
        chmod 600 {GUEST_DIR}/host_key {GUEST_DIR}/authorized_keys
        echo 1 > /sys/bus/pci/rescan
        until [ -e /sys/class/net/eth0 ]; do sleep 0.01; done
        ip link set lo up
        ip address add {ADDRESS}/24 dev eth0
        ip link set eth0 up
        nice -n -20 setsid sh {GUEST_DIR}/start-ssh > /dev/kmsg 2>&1 < /dev/null &
        # QEMU repeats a connection that nobody answered after seconds
        until (exec 3<> /dev/tcp/{ADDRESS}/22) 2> /dev/null; do sleep 0.02; done""")


def make_keys() -> Keys:
    """Fresh Ed25519 keys for one machine."""
    host, host_private = _key()
    client, _ = _key()
    return Keys(host, client, host_private)


def _key() -> tuple[paramiko.PKey, bytes]:
    private = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )
    return paramiko.Ed25519Key.from_private_key(io.StringIO(private.decode())), private


def connect(port: int, keys: Keys, watch: Callable[[], None], limit_s: float) -> paramiko.Transport:
    """Connects as soon as the guest's sshd is up.

    Raises ConsoleLost after `limit_s`, or what `watch` raises when the machine is dead.
    """
    deadline = time.monotonic() + limit_s
    last = ""
    while time.monotonic() < deadline:
        watch()
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=limit_s)
            # QEMU takes every connection; one that sshd answers begins with sshd's banner
            if connection.recv(1, socket.MSG_PEEK):
                return _log_in(connection, keys, limit_s)
            last = "no sshd yet"
            connection.close()
        except (OSError, EOFError, paramiko.SSHException) as error:
            last = str(error) or type(error).__name__
        time.sleep(RETRY_S)
    raise ConsoleLost(f"ssh console: no connection within {limit_s:.0f} s ({last})")


def _log_in(connection: socket.socket, keys: Keys, limit_s: float) -> paramiko.Transport:
    transport = paramiko.Transport(connection, default_window_size=WINDOW)
    try:
        transport.banner_timeout = limit_s
        transport.auth_timeout = limit_s
        transport.start_client(timeout=limit_s)
        if transport.get_remote_server_key() != keys.host:
            raise ConsoleLost("ssh console: the port is answered by another host")
        transport.auth_publickey("root", keys.client)
        transport.set_keepalive(KEEPALIVE_S)
    except BaseException:
        transport.close()
        raise
    return transport


def open_channel(
    connection: paramiko.Transport,
    prepare: Callable[[paramiko.Channel], None],
    watch: Callable[[], None],
    limit_s: float,
) -> paramiko.Channel:
    """A channel on which `prepare` has asked the server for something.

    paramiko waits for the answers without an end. Raises ConsoleLost after `limit_s` or when the
    server refuses, or what `watch` raises; the connection is closed then.
    """
    answers: list[paramiko.Channel | Exception] = []

    def ask() -> None:
        try:
            channel = connection.open_session()
            prepare(channel)
            answers.append(channel)
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    deadline = time.monotonic() + limit_s
    try:
        while not answers:
            thread.join(RETRY_S)
            watch()
            if not answers and time.monotonic() > deadline:
                raise ConsoleLost(f"ssh console: no answer within {limit_s:.0f} s")
        if isinstance(answer := answers[0], Exception):
            raise ConsoleLost(f"ssh console: no channel: {answer}")
    except BaseException:
        connection.close()
        raise
    return answer


def _start_agent(channel: paramiko.Channel) -> None:
    channel.set_combine_stderr(True)
    channel.exec_command(AGENT)


class ChannelTransport:
    """A channel of an ssh connection with the guest program at its other end."""

    def __init__(
        self, connection: paramiko.Transport, watch: Callable[[], None], limit_s: float
    ) -> None:
        self._connection = connection
        self._channel = open_channel(connection, _start_agent, watch, limit_s)

    def send(self, data: bytes, wait_s: float) -> int:
        """See images.console.stream.Transport."""
        self._channel.settimeout(wait_s)
        try:
            return self._channel.send(data)
        except TimeoutError:
            return 0
        except OSError:  # closed: the watch and the deadline tell
            time.sleep(wait_s)
            return 0

    def receive(self, wait_s: float) -> bytes | None:
        """See images.console.stream.Transport."""
        self._channel.settimeout(wait_s)
        try:
            return self._channel.recv(CHUNK)
        except TimeoutError:
            return None
        except OSError:
            return b""

    def close(self) -> None:
        """See images.console.stream.Transport."""
        self._connection.close()
