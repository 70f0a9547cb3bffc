# SPDX-License-Identifier: GPL-2.0-or-later
"""The tests of upstream blktests that a run executes, as values of its plan.

`tests/blktests` reads them from a checkout and runs them.
"""

from __future__ import annotations

import msgspec

from blockyard.modules.manifest import Manifest

NULL_BLK = "null_blk"  # the driver with which upstream's tests make disks
SECONDS = 10  # default for a test with a time limit; upstream's own default is 30


class UpstreamTest(msgspec.Struct, frozen=True):
    """A test of upstream blktests."""

    name: str  # group/number
    on_a_disk: bool = False  # it takes a disk (test_device); else it makes its own
    on_null_blk: bool = False  # it, or its group, makes its disks with null_blk

    @property
    def group(self) -> str:
        """The folder of the test, such as `block`."""
        return self.name.partition("/")[0]

    def fits(self, driver: Manifest) -> bool:
        """Whether the test exercises that driver.

        A test that takes a disk runs on every driver. A test that makes its own disks runs with
        null_blk and its counterparts, or with the driver that its group is named after.
        """
        if self.on_a_disk or driver.name == self.group:
            return True
        if self.on_null_blk:
            return NULL_BLK in (driver.name, driver.counterpart)
        return driver.name == NULL_BLK and self.group != "nvme"


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream tests of a run."""

    tests: tuple[UpstreamTest, ...]
    digest: str  # a hash of the files that were taken from the checkout
    archive: str = ""  # the key of a tar of it in the cache, see tests/blktests/archive.py
    seconds: int = SECONDS  # how long a test with a time limit runs
