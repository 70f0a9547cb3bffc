# SPDX-License-Identifier: GPL-2.0-or-later
"""Which of upstream's blktests a run does, as values of its plan.

`tests/blktests` reads them from a checkout and runs them.
"""

from __future__ import annotations

import msgspec

from blockyard.modules.manifest import Manifest

NULL_BLK = "null_blk"  # the driver that upstream's tests make their own disks with
SECONDS = 10  # what a test with a time limit takes by default; upstream's own default is 30


class UpstreamTest(msgspec.Struct, frozen=True):
    """One test of upstream's."""

    name: str  # group/number
    on_a_disk: bool = False  # it is given a disk; else it makes its own
    on_null_blk: bool = False  # it, or its group, makes them with null_blk

    @property
    def group(self) -> str:
        """The folder that it stands in."""
        return self.name.partition("/")[0]

    def fits(self, driver: Manifest) -> bool:
        """Whether it says something about that driver.

        A test that is given a disk runs on every driver, one that makes its own runs once: with
        null_blk and what stands in for it, or where its group belongs.
        """
        if self.on_a_disk or driver.name == self.group:
            return True
        if self.on_null_blk:
            return NULL_BLK in (driver.name, driver.counterpart)
        return driver.name == NULL_BLK and self.group != "nvme"


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """What of upstream a run does."""

    tests: tuple[UpstreamTest, ...]
    digest: str  # a hash of what was taken of the checkout
    archive: str = ""  # the key of a tar of it in the cache, see tests/blktests/archive.py
    seconds: int = SECONDS  # what a test with a time limit takes
