# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver's devices in a running guest: taken from other drivers, bound, given back."""

from __future__ import annotations

import os
from dataclasses import dataclass

from blockyard.images.console.console import Console
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

    def take(self) -> str:
        """Shell lines that get the devices from other drivers, if need be."""
        if not self.wanted.driver_override:
            return "".join(
                f"if [ -d /sys/module/{module} ]; then modprobe --remove -- {module}; fi\n"
                for module in self.wanted.competitors
            )
        driver = self.wanted.driver
        return self._each(f"""
            echo {driver} > $device/driver_override
            owner=$(readlink $device/driver) || continue
            [ ${{owner##*/}} = {driver} ] || echo ${{device##*/}} > $device/driver/unbind""")

    def probe(self) -> str:
        """Shell lines that have free devices probed, and fail when none is the driver's then."""
        probe = self._each(
            f"[ -e $device/driver ] || echo ${{device##*/}} > {self.bus}/drivers_probe"
        )
        missing = f"echo '{self.wanted.driver} is bound to no device'; exit 1"
        return f"{probe}\nls -d {self.folder}/*:* > /dev/null || {{ {missing}; }}\n"

    def release(self) -> str:
        """Shell lines that leave the devices to whoever matches them."""
        return self._each("echo > $device/driver_override")

    def _each(self, lines: str) -> str:
        """Shell lines that run `lines` with $device, the sysfs folder, for each of the devices."""
        return f"""
            for device in {self.bus}/devices/*; do
                read -r vendor < $device/vendor
                read -r model < $device/device
                case $vendor:$model in {"|".join(self.wanted.devices)}) ;; *) continue ;; esac
                {lines}
            done
"""

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
