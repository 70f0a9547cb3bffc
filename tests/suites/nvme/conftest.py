# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixture `nvme`: the controllers of a guest."""

from __future__ import annotations

import pytest

from blockyard.modules.driver import Driver
from blockyard.tests.harness.guests import Guest
from blockyard.tests.lib.nvme import Nvme, controllers

DATA = "/tmp/nvme-data"  # random bytes
DATA_BYTES = 1 << 20


@pytest.fixture
def nvme(guest: Guest, driver: Driver) -> Nvme:
    """The controllers and their namespaces; DATA holds random bytes."""
    names = controllers(driver.console, guest.machine.setup.topology)
    driver.console.check(f"[ -e {DATA} ] || head -c {DATA_BYTES} /dev/urandom > {DATA}")
    return Nvme(guest.machine, driver.console, names)
