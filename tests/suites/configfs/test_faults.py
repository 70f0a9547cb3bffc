# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults on demand: requests that time out, that are queued again, queues that do not come up.

The kernel variant `faults` has them.
"""

import errno

from blockyard.modules.disk import Disk, error_number, write_file
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip
from blockyard.tests.lib.fio import verified

pytestmark = [
    needs("configfs", symbol="BLK_DEV_NULL_BLK_FAULT_INJECTION"),
    feature("fault injection"),
]


def inject(driver: Driver, disk: Disk, what: str, **settings: int) -> None:
    """Sets a disk's fault attributes (Documentation/fault-injection)."""
    folder = f"{disk.directory}/{what}"
    if driver.console.run(f"test -d {folder}").exit_code:
        skip("driver", f"{driver.name} has no {what}")
    for name, value in {"verbose": 0, **settings}.items():
        assert write_file(driver.console, f"{folder}/{name}", str(value)) == 0


def read(disk: Disk) -> int:
    return error_number(
        disk.console.run(
            f"dd if={disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none", timeout_s=5
        )
    )


def test_timed_out_request_is_etimedout(driver: Driver) -> None:
    """A request that is forgotten ends after the queue's time-out, with ETIMEDOUT."""
    with driver.disk() as disk:
        inject(driver, disk, "timeout_inject", probability=100, times=1)
        assert disk.set_queue("io_timeout", "500") == 0
        assert read(disk) == errno.ETIMEDOUT
        assert read(disk) == 0


@needs(symbol="FAIL_IO_TIMEOUT")
def test_fail_io_timeout_is_etimedout(driver: Driver) -> None:
    """io-timeout-fail of the disk with fail_io_timeout of debugfs."""
    with driver.disk() as disk:
        knobs = "/sys/kernel/debug/fail_io_timeout"
        if driver.console.run(f"test -d {knobs}").exit_code:
            skip("kernel", "this kernel has no fail_io_timeout in debugfs")
        assert disk.set_queue("io_timeout", "500") == 0
        driver.console.check(
            f"cd {knobs}; echo 0 > verbose; echo 1 > times; echo 100 > probability; "
            f"echo 1 > {disk.sysfs}/io-timeout-fail"
        )
        try:
            assert read(disk) == errno.ETIMEDOUT
        finally:
            driver.console.check(f"echo 0 > {knobs}/probability; echo 1 > {knobs}/times")
        assert read(disk) == 0


def test_requeued_requests_complete(driver: Driver) -> None:
    """Every second request is sent back; none is lost, none is done twice."""
    attributes = driver.store_attributes()
    with driver.disk(**attributes) as disk:
        inject(driver, disk, "requeue_inject", probability=50, times=-1)
        load = verified(
            disk,
            timeout_s=5,  # a request that is not queued again hangs
            bs="4k",
            size="512k",
            ioengine="libaio",
            iodepth=16,
        )
        assert load.written_bytes == load.read_bytes == 512 << 10


def test_failed_queue_setup_makes_no_disk(driver: Driver) -> None:
    """init_hctx fails: power-on is an error, and works when it is tried again."""
    with driver.disk() as disk:
        assert disk.set_attribute("power", "0") == 0
        inject(driver, disk, "init_hctx_fault_inject", probability=100, times=1)
        assert disk.set_attribute("power", "1") != 0
        assert not disk.exists()
        assert disk.attribute("power") == "0"
        assert disk.set_attribute("power", "1") == 0
        assert disk.exists()


def test_invalid_fault_setting_is_einval(driver: Driver) -> None:
    with driver.disk() as disk:
        inject(driver, disk, "timeout_inject")
        path = f"{disk.directory}/timeout_inject/probability"
        assert write_file(driver.console, path, "often") == errno.EINVAL
