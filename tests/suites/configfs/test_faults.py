# SPDX-License-Identifier: GPL-2.0-or-later
"""Fault injection: requests that time out or are requeued, queues whose setup fails.

The kernel variant `faults` has the options for it.
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


def inject(driver: Driver, disk: Disk, fault: str, **settings: int) -> None:
    """Set a disk's fault attributes (Documentation/fault-injection)."""
    folder = f"{disk.directory}/{fault}"
    if driver.console.run(f"test -d {folder}").exit_code:
        skip("driver", f"{driver.name} has no {fault}")
    for name, value in {"verbose": 0, **settings}.items():
        assert write_file(driver.console, f"{folder}/{name}", str(value)) == 0


def read(disk: Disk) -> int:
    """Read 4 KiB with direct I/O; return the errno, 0 for success."""
    return error_number(
        disk.console.run(
            f"dd if={disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none", timeout_s=5
        )
    )


def test_timed_out_request_is_etimedout(driver: Driver) -> None:
    """A request that the driver drops fails after the queue's time-out, with ETIMEDOUT."""
    with driver.disk() as disk:
        inject(driver, disk, "timeout_inject", probability=100, times=1)
        assert disk.set_queue("io_timeout", "500") == 0
        assert read(disk) == errno.ETIMEDOUT
        assert read(disk) == 0


@needs(symbol="FAIL_IO_TIMEOUT")
def test_fail_io_timeout_is_etimedout(driver: Driver) -> None:
    """The block layer drops a completion (io-timeout-fail in sysfs, fail_io_timeout in debugfs)."""
    with driver.disk() as disk:
        debugfs = "/sys/kernel/debug/fail_io_timeout"
        if driver.console.run(f"test -d {debugfs}").exit_code:
            skip("kernel", "this kernel has no fail_io_timeout in debugfs")
        assert disk.set_queue("io_timeout", "500") == 0
        driver.console.check(
            f"cd {debugfs}; echo 0 > verbose; echo 1 > times; echo 100 > probability; "
            f"echo 1 > {disk.sysfs}/io-timeout-fail"
        )
        try:
            assert read(disk) == errno.ETIMEDOUT
        finally:
            driver.console.check(f"echo 0 > {debugfs}/probability; echo 1 > {debugfs}/times")
        assert read(disk) == 0


def test_requeued_requests_complete(driver: Driver) -> None:
    """Half of the requests are requeued; none is lost or done twice."""
    attributes = driver.persistent_attributes()
    with driver.disk(**attributes) as disk:
        inject(driver, disk, "requeue_inject", probability=50, times=-1)
        load = verified(
            disk,
            timeout_s=5,  # a request that is never dispatched again hangs
            bs="4k",
            size="512k",
            ioengine="libaio",
            iodepth=16,
        )
        assert load.written_bytes == load.read_bytes == 512 << 10


def test_failed_queue_setup_makes_no_disk(driver: Driver) -> None:
    """Power-on fails when init_hctx() fails, and works when it is tried again."""
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
