# SPDX-License-Identifier: GPL-2.0-or-later
"""Binds a driver to its devices in a running guest, and gives them back to other drivers."""

from __future__ import annotations

import os
from dataclasses import dataclass

from blockyard.images.console.console import Console
from blockyard.images.console.script import words
from blockyard.kernel.host.errors import Failure
from blockyard.modules.disk import write_file
from blockyard.modules.manifest import Bind


@dataclass(frozen=True)
class Binding:
    """The devices of a manifest's ``[bind]``, and the driver that binds to them."""

    table: Bind
    console: Console

    @property
    def bus(self) -> str:
        """The folder of the bus in sysfs."""
        return f"/sys/bus/{self.table.bus}"

    @property
    def folder(self) -> str:
        """The driver's folder in sysfs."""
        return f"{self.bus}/drivers/{self.table.driver}"

    def take(self) -> list[str]:
        """Shell lines that detach the devices from other drivers (functions of driver.bash)."""
        if self.table.driver_override:
            return [words("take_devices", self.table.bus, self._ids, self.table.driver)]
        return [
            f"if [ -d /sys/module/{module} ]; then modprobe --remove -- {module}; fi"
            for module in self.table.competitors
        ]

    def probe(self) -> str:
        """A shell line that probes unbound devices; fails if the driver is bound to none then."""
        return words("probe_devices", self.table.bus, self._ids, self.table.driver)

    def release(self) -> str:
        """A shell line that clears driver_override, so that any matching driver can bind."""
        return words("release_devices", self.table.bus, self._ids)

    @property
    def _ids(self) -> str:
        return " ".join(self.table.devices)

    def devices(self) -> list[str]:
        """The devices that the driver is bound to, such as ``0000:00:04.0``."""
        return self.console.run(f"cd {self.folder} 2> /dev/null && ls -d *:*").output.split()

    def owner(self, device: str) -> str:
        """The name of the driver that a device is bound to; empty when there is none."""
        link = self.console.run(f"readlink {self.bus}/devices/{device}/driver").output
        return link.strip().rpartition("/")[2]

    def unbind(self, device: str) -> None:
        """Unbinds a device from the driver; raises Failure when the kernel refuses."""
        self._write("unbind", device)

    def bind(self, device: str) -> None:
        """Binds a device to the driver; raises Failure when the kernel refuses."""
        self._write("bind", device)

    def _write(self, file: str, device: str) -> None:
        path = f"{self.folder}/{file}"
        if number := write_file(self.console, path, device):
            raise Failure(f"cannot write {device} to {path}: {os.strerror(number)}")
