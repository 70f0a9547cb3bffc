# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver's devices in a running guest: taken from other drivers, bound, given back."""

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
    """The devices that a manifest's ``[bind]`` names, and the driver they are for."""

    wanted: Bind
    console: Console

    @property
    def bus(self) -> str:
        """The bus's folder in sysfs."""
        return f"/sys/bus/{self.wanted.bus}"

    @property
    def folder(self) -> str:
        """The driver's folder in sysfs."""
        return f"{self.bus}/drivers/{self.wanted.driver}"

    def take(self) -> list[str]:
        """Shell lines that get the devices from other drivers, if need be (driver.bash)."""
        if self.wanted.driver_override:
            return [words("take_devices", self.wanted.bus, self._ids, self.wanted.driver)]
        return [
            f"if [ -d /sys/module/{module} ]; then modprobe --remove -- {module}; fi"
            for module in self.wanted.competitors
        ]

    def probe(self) -> str:
        """A shell line that has free devices probed; it fails when none is the driver's then."""
        return words("probe_devices", self.wanted.bus, self._ids, self.wanted.driver)

    def release(self) -> str:
        """A shell line that leaves the devices to whichever driver matches them."""
        return words("release_devices", self.wanted.bus, self._ids)

    @property
    def _ids(self) -> str:
        return " ".join(self.wanted.devices)

    def devices(self) -> list[str]:
        """The devices that the driver is bound to, such as ``0000:00:04.0``."""
        return self.console.run(f"cd {self.folder} 2> /dev/null && ls -d *:*").output.split()

    def owner(self, device: str) -> str:
        """The driver that a device is bound to; empty when there is none."""
        link = self.console.run(f"readlink {self.bus}/devices/{device}/driver").output
        return link.strip().rpartition("/")[2]

    def unbind(self, device: str) -> None:
        """Takes a device from the driver; Failure when the kernel refuses."""
        self._tell("unbind", device)

    def bind(self, device: str) -> None:
        """Gives a device to the driver; Failure when the kernel refuses."""
        self._tell("bind", device)

    def _tell(self, file: str, device: str) -> None:
        path = f"{self.folder}/{file}"
        if number := write_file(self.console, path, device):
            raise Failure(f"{path} refused {device}: {os.strerror(number)}")
