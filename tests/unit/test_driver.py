# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver's commands, seen by a console that runs none of them."""

from __future__ import annotations

from unittest.mock import Mock

from blockyard.images.console.console import TIME_OUTS_S
from blockyard.modules import manifest
from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver


class TestWaits:
    """What a kernel ends by its own time-outs is no hang before that."""

    def test_unloading(self) -> None:
        console = Mock()
        Driver(manifest.load("nvme"), Mock(), console).unload()
        assert console.check.call_args.kwargs["blocked_s"] == TIME_OUTS_S

    def test_removing_a_disk(self) -> None:
        console = Mock()
        disk = Disk("nullb0", console, "/sys/kernel/config/nullb/by1")
        Driver(manifest.load("null_blk"), Mock(), console).remove(disk)
        assert console.check.call_args.kwargs["blocked_s"] == TIME_OUTS_S
