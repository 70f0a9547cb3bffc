# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of a driver, sent to a console that does not run them."""

from __future__ import annotations

from unittest.mock import Mock

from blockyard.images.console.console import TIME_OUTS_S
from blockyard.modules import manifest
from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver


class TestWaits:
    """A command that waits for a timeout of the kernel may block until that timeout."""

    def test_unload_may_wait_for_kernel_timeouts(self) -> None:
        console = Mock()
        Driver(manifest.load("nvme"), Mock(), console).unload()
        assert console.check.call_args.kwargs["blocked_s"] == TIME_OUTS_S

    def test_remove_may_wait_for_kernel_timeouts(self) -> None:
        console = Mock()
        disk = Disk("nullb0", console, "/sys/kernel/config/nullb/by1")
        Driver(manifest.load("null_blk"), Mock(), console).remove(disk)
        assert console.check.call_args.kwargs["blocked_s"] == TIME_OUTS_S
