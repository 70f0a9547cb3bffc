# SPDX-License-Identifier: GPL-2.0-or-later
"""The controllers of a guest, for tests that talk to them."""

from __future__ import annotations

import pytest

from blockyard.modules.driver import Driver
from blockyard.tests.harness.guests import Guest
from blockyard.tests.lib.nvme import Nvme, controllers

DATA = "/tmp/nvme-data"  # random bytes
DATA_BYTES = 1 << 20


@pytest.fixture
def nvme(guest: Guest, driver: Driver) -> Nvme:
    """The controllers and their namespaces; there are random bytes in DATA."""
    names = controllers(driver.console, guest.machine.setup.topology)
    driver.console.check(f"[ -e {DATA} ] || head -c {DATA_BYTES} /dev/urandom > {DATA}")
    return Nvme(guest.machine, driver.console, names)
