# SPDX-License-Identifier: GPL-2.0-or-later
"""Request completion: inline (irqmode 0), by softirq (1), by timer (2)."""

import errno

import pytest

from blockyard.modules.driver import CreateFailed, Driver
from blockyard.tests.harness.requirements import needs, skip
from blockyard.tests.lib.fio import fio

pytestmark = [needs("configfs", "attribute:irqmode"), needs(program="fio")]

MIB = 1 << 20


@pytest.mark.parametrize("mode", ["0", "1", "2"])
def test_batches_complete(driver: Driver, mode: str) -> None:
    """The driver gets requests in batches, in which only the last one is marked as last."""
    try:
        with driver.disk(irqmode=mode) as disk:
            load = fio(
                disk,
                20,
                rw="randread",
                bs="4k",
                size="4M",
                ioengine="libaio",
                iodepth=32,
                iodepth_batch_submit=16,
                iodepth_batch_complete_min=1,
            )
            assert load.read_bytes == 4 * MIB
            assert disk.attribute("irqmode") == mode
    except CreateFailed as refused:
        if mode == "2" and refused.errno == errno.EINVAL:
            skip("driver", f"{driver.name} has no irqmode 2 (timer)")
        raise
