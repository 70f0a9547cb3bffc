# SPDX-License-Identifier: GPL-2.0-or-later
"""Upstream blktests: one test for each of upstream's, on each driver that it supports.

A test that changes the state of its guest ends the guest but does not fail, because upstream's
tests unload and load modules. Splats are failures, as everywhere.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from blockyard.kernel.host import store
from blockyard.kernel.host.errors import Failure
from blockyard.modules.manifest import Configfs
from blockyard.tests.blktests import archive, results
from blockyard.tests.blktests import guest as upstream_guest
from blockyard.tests.harness import guest_state
from blockyard.tests.harness.guests import Guest, Slot
from blockyard.tests.harness.plan import Plan
from blockyard.tests.harness.requirements import Skipped, skip
from blockyard.tests.harness.upstream import UpstreamTest

pytestmark = pytest.mark.blockyard_third_party


class UpstreamFailed(AssertionError):
    """A test failed. `kernel_log`: the log in which upstream found a problem, or empty."""

    def __init__(self, verdict: results.Verdict) -> None:
        super().__init__(verdict.reason)
        self.kernel_log = verdict.kernel_log


def test_blktests(
    guest: Guest,
    blockyard_slot: Slot,
    upstream_test: UpstreamTest,
    blockyard_plan: Plan,
    blockyard_directory: Path,
) -> None:
    driver = guest.driver
    stands_in = upstream_guest.stands_in(driver)
    if stands_in and not isinstance(driver.manifest.disks, Configfs):
        skip("driver", f"{driver.name} has no configfs disks in this kernel", "configfs")
    upstream = blockyard_plan.scope.upstream
    assert upstream is not None
    if upstream_guest.unpack(driver, archive.tar_of(upstream.archive)):
        guest.state = guest_state.read(driver)  # including the file systems mounted for blktests
    cpus = guest.machine.setup.topology.cpus
    if why := upstream_guest.unmet(upstream_test, driver, cpus):
        raise Skipped(why)
    try:
        outcome = upstream_guest.run(driver, upstream_test, upstream)
    finally:
        # load a module again that the test unloaded; other changes still end the guest
        with contextlib.suppress(Failure):
            driver.load()
    name = f"{upstream_test.name.replace('/', '-')}-{blockyard_slot}.tar"
    store.write(blockyard_directory / "blktests" / name, outcome.archive)
    attributes = driver.attributes if stands_in else ()
    verdict = results.judge(outcome.results, upstream_test, outcome.disk, driver.name, attributes)
    if verdict.skip:
        raise Skipped(verdict.skip, verdict.reason)
    if verdict.outcome == "fail":
        raise UpstreamFailed(verdict)
