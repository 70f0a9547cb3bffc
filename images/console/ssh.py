# SPDX-License-Identifier: GPL-2.0-or-later
"""Transport of the ssh console: one connection and one channel to the guest program, kept open.

Each guest gets new keys for both sides. Its host key is in its initramfs, so the host can verify
which guest it talks to. Connections go to the loopback address only.
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

GUEST_DIR = "/run/blockyard"  # the same as in guest.h
AGENT = f"{GUEST_DIR}/agent"
ADDRESS = "10.0.2.15"  # the guest's; QEMU's user network forwards to it
RETRY_S = 0.05
KEEPALIVE_S = 5
WINDOW = 1 << 24  # bytes in flight; paramiko's default of 2 MiB stalls a large output


# paramiko raises its errors; without a handler it would print them as well.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Keys:
    """The two key pairs of one guest."""

    host: paramiko.PKey
    client: paramiko.PKey
    host_private: bytes = field(repr=False)  # PEM, for sshd

    def files(self) -> list[cpio.File]:
        """The files that sshd needs in the guest (see guest/init.c)."""
        authorized = f"{self.client.get_name()} {self.client.get_base64()}\n".encode()
        start = (PROJECT / "images" / "guest" / "start-ssh").read_bytes()
        return [
            cpio.File("ssh/host_key", self.host_private, 0o600),
            cpio.File("ssh/authorized_keys", authorized, 0o600),
            cpio.File("ssh/start-ssh", start, 0o755),
        ]

    def initramfs(self) -> bytes:
        """The same as a cpio archive, to append to the initramfs."""
        return cpio.archive(self.files())


def start(serial: Console, keys: Keys) -> None:
    """Starts sshd in a guest that was started from a snapshot (init does it during a boot).

    Its network device is new: the saved guest had none, so the PCI bus is scanned again.
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
        # QEMU retries a connection that is not answered only after seconds
        until (exec 3<> /dev/tcp/{ADDRESS}/22) 2> /dev/null; do sleep 0.02; done""")


def make_keys() -> Keys:
    """New Ed25519 keys for one guest."""
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
    """Connects and logs in as soon as the guest's sshd answers.

    Raises ConsoleLost after `limit_s`, or what `watch` raises when the guest has died.
    """
    deadline = time.monotonic() + limit_s
    last = ""
    while time.monotonic() < deadline:
        watch()
        try:
            connection = socket.create_connection(("127.0.0.1", port), timeout=limit_s)
            # QEMU accepts every connection; sshd's banner shows that sshd answers
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
            raise ConsoleLost("ssh console: wrong host key: another host answers on this port")
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
    """A new channel after `prepare` has sent its requests on it.

    This runs in a thread, because paramiko waits for answers without a time limit. Raises
    ConsoleLost after `limit_s` or when the server refuses, or what `watch` raises. On an error the
    connection is closed.
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
            raise ConsoleLost(f"ssh console: cannot open a channel: {answer}")
    except BaseException:
        connection.close()
        raise
    return answer


def _start_agent(channel: paramiko.Channel) -> None:
    channel.set_combine_stderr(True)
    channel.exec_command(AGENT)


class ChannelTransport:
    """An ssh channel with the guest program at its other end."""

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
        except OSError:  # closed: the watch or the deadline reports it
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
