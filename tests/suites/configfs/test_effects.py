# SPDX-License-Identifier: GPL-2.0-or-later
"""Effects of each attribute: on the queue, latency, bandwidth and errors."""

import errno
from typing import Any

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.budget import Budget
from blockyard.tests.harness.requirements import feature, needs, skip, smoke
from blockyard.tests.lib.fio import VERIFIED, background_io, fio, statistics
from blockyard.tests.lib.null_blk import DEBUGFS, flags

pytestmark = needs("configfs")


def hardware_queues(disk: Disk) -> int:
    return int(disk.console.check(f"ls {disk.sysfs}/mq | wc -l"))


@needs("attribute:rotational")
@pytest.mark.parametrize("value", ["0", "1"])
def test_rotational_shows_in_the_queue(driver: Driver, value: str) -> None:
    with driver.disk(rotational=value) as disk:
        assert disk.queue("rotational") == value


@needs("attribute:completion_nsec", "attribute:irqmode", program="fio")
@smoke
def test_completion_nsec_sets_the_latency(driver: Driver) -> None:
    """No request is faster than completion_nsec, and the median is not much slower."""
    with driver.disk(irqmode=2, completion_nsec=10_000_000) as disk:
        load = fio(disk, rw="randread", bs="4k", size="80k", ioengine="psync")
        assert load.latency_min_ns >= 10_000_000
        assert load.latency_median_ns < 10 * 10_000_000
    with driver.disk(irqmode=2, completion_nsec=10_000) as disk:
        quick = fio(disk, rw="randread", bs="4k", size="80k", ioengine="psync")
        assert quick.latency_median_ns < load.latency_median_ns


@needs("attribute:completion_nsec", "attribute:irqmode")
def test_completion_nsec_needs_the_timer(driver: Driver) -> None:
    with driver.disk(irqmode=1, completion_nsec=2_000_000_000) as disk:
        result = disk.console.run(
            f"dd if={disk.path} of=/dev/null bs=4k count=1 iflag=direct status=none", timeout_s=30
        )
        assert result.exit_code == 0
        assert result.seconds < 2


@needs("attribute:mbps", program="fio")
@smoke
def test_bandwidth_is_limited(driver: Driver, budget: Budget) -> None:
    """Each tick of 20 ms allows 1/50 of `mbps` (TICKS_PER_SEC is 50 in null_blk)."""
    limit = 8
    with driver.disk(mbps=limit) as disk:
        runtime = f"{max(0.5, budget.seconds(1.0)) * 1000:.0f}ms"
        load = fio(
            disk, rw="write", bs="64k", size="64M", ioengine="psync", time_based=1, runtime=runtime
        )
        assert load.runtime_s > 0
        mib_per_s = load.written_bytes / load.runtime_s / (1 << 20)
        assert mib_per_s <= limit * 1.5, f"{mib_per_s:.1f} MiB/s with a limit of {limit}"
        assert mib_per_s >= limit / 4, f"{mib_per_s:.1f} MiB/s with a limit of {limit}"


@needs("attribute:mbps")
def test_throttled_disk_is_removed_under_io(driver: Driver) -> None:
    """Removal does not wait for requests that wait for bandwidth."""
    disk = driver.create({"mbps": "1"})
    with background_io(disk, survives=False, rw="randwrite", bs="4k", iodepth=64):
        driver.remove(disk)
    assert not disk.exists()


@needs("attribute:mbps", program="fio")
def test_throttled_disk_powers_off_under_io(driver: Driver, budget: Budget) -> None:
    """The bandwidth timer must stop with the disk; the next disk reuses the memory."""
    for _ in range(max(3, budget.times(6))):
        with driver.disk(mbps=20) as disk, background_io(disk, survives=False, bs="4k"):
            assert disk.set_attribute("power", "0") == 0
    driver.console.check("sleep 0.2")


@needs("attribute:mbps")
def test_request_above_the_mbps_limit_completes(driver: Driver) -> None:
    """A request may be larger than one tick of the bandwidth timer allows."""
    with driver.disk(mbps=1) as disk:
        read = f"dd if={disk.path} of=/dev/null bs=128k count=1 iflag=direct status=none"
        disk.console.check(read, timeout_s=0.5)  # 128 KiB take 0.13 s at 1 MiB/s


@needs("attribute:submit_queues")
@pytest.mark.parametrize("queues", [1, 2])
def test_submit_queues_are_hardware_queues(driver: Driver, queues: int) -> None:
    attributes = {"submit_queues": queues}
    if "attribute:poll_queues" in driver.capabilities:
        attributes["poll_queues"] = 0
    with driver.disk(**attributes) as disk:
        assert hardware_queues(disk) == queues


@needs("attribute:poll_queues", "attribute:submit_queues")
def test_poll_queues_are_added_to_submit_queues(driver: Driver) -> None:
    with driver.disk(submit_queues=2, poll_queues=1) as disk:
        assert hardware_queues(disk) == 3
        assert disk.queue("io_poll") == "1"
        assert "poll" in disk.console.check(f"cat {DEBUGFS}/{disk.name}/hctx*/type")


@needs("attribute:poll_queues", program="fio")
def test_unpolled_request_times_out(driver: Driver) -> None:
    """A timed-out request leaves the poll list and completes with an error."""
    with driver.disk(poll_queues=1) as disk:
        assert disk.set_queue("io_timeout", "500") == 0
        polled: dict[str, Any] = {"rw": "randread", "ioengine": "io_uring", "hipri": 1}
        with background_io(disk, survives=False, iodepth=8, **polled) as process:
            disk.console.check(
                f"""
                trap 'kill -CONT {process}' EXIT
                waits() {{ read -r reads _ < {disk.sysfs}/inflight; [ $reads != 0 ]; }}
                for try in {{1..50}}; do
                    kill -STOP {process}
                    sleep 0.05
                    waits && break
                    kill -CONT {process}
                done
                waits
                wait_until 5 eval '! waits' || {{ echo "the requests did not end"; exit 1; }}"""
            )
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=4 iflag=direct status=none")


@needs("attribute:submit_queues", program="fio")
def test_submit_queues_change_under_io(driver: Driver, budget: Budget) -> None:
    """submit_queues may change while the disk is in use."""
    with driver.disk(submit_queues=1) as disk, background_io(disk, numjobs=2):
        poll_queues = hardware_queues(disk) - 1
        for value in ("2", "1") * budget.times(3):
            assert disk.set_attribute("submit_queues", value) == 0
            assert disk.attribute("submit_queues") == value
            assert hardware_queues(disk) == int(value) + poll_queues


@needs("attribute:submit_queues", "attribute:memory_backed", program="fio")
def test_data_survives_queue_count_changes(driver: Driver, budget: Budget) -> None:
    with (
        driver.disk(**driver.persistent_attributes(), submit_queues=1) as disk,
        background_io(disk, numjobs=2, offset_increment="16M", **VERIFIED),
    ):
        for value in ("2", "1") * budget.times(3):
            assert disk.set_attribute("submit_queues", value) == 0


@needs("attribute:submit_queues")
@pytest.mark.parametrize("value", ["0", "1000"])
def test_invalid_submit_queues_are_einval_with_power(driver: Driver, value: str) -> None:
    with driver.disk(submit_queues=1) as disk:
        assert disk.set_attribute("submit_queues", value) == errno.EINVAL
        assert disk.attribute("submit_queues") == "1"
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=4 iflag=direct status=none")


@needs("attribute:poll_queues")
def test_poll_queues_change_with_power(driver: Driver) -> None:
    with driver.disk(poll_queues=1) as disk:
        before = hardware_queues(disk)
        assert disk.set_attribute("poll_queues", "0") == 0
        assert hardware_queues(disk) == before - 1
        assert disk.set_attribute("poll_queues", "1") == 0
        assert hardware_queues(disk) == before
        assert disk.set_attribute("poll_queues", "50") == errno.EINVAL


@needs("attribute:hw_queue_depth", program="fio")
@pytest.mark.parametrize("depth", [1, 2, 512])
def test_queue_depth_is_the_number_of_tags(driver: Driver, depth: int) -> None:
    with driver.disk(hw_queue_depth=depth) as disk:
        assert disk.console.check(f"cat {disk.sysfs}/mq/0/nr_tags").strip() == str(depth)
        load = fio(disk, rw="randread", bs="4k", size="256k", ioengine="libaio", iodepth=32)
        assert load.read_bytes == 256 << 10


@needs("attribute:max_sectors")
@pytest.mark.parametrize("sectors", [8, 256])
@smoke
def test_max_sectors_limits_requests(driver: Driver, sectors: int) -> None:
    with driver.disk(max_sectors=sectors) as disk:
        assert disk.queue_number("max_hw_sectors_kb") == sectors // 2
        before = statistics(disk)["reads"]
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=1M count=1 iflag=direct status=none")
        assert statistics(disk)["reads"] - before >= 2048 // sectors


@needs("attribute:virt_boundary")
@pytest.mark.parametrize("value", ["0", "1"])
def test_virt_boundary_is_a_page(driver: Driver, value: str) -> None:
    with driver.disk(virt_boundary=value) as disk:
        mask = disk.queue_number("virt_boundary_mask")
        assert mask == (4095 if value == "1" else 0)


@needs("attribute:no_sched")
@pytest.mark.parametrize(("value", "scheduler"), [("0", "mq-deadline"), ("1", "none")])
def test_no_sched_starts_without_a_scheduler(driver: Driver, value: str, scheduler: str) -> None:
    """A disk with one queue starts with mq-deadline if that is built into the kernel."""
    if driver.kernel.config.get("MQ_IOSCHED_DEADLINE") != "y":
        skip("kernel", "mq-deadline is not built into this kernel")
    with driver.disk(no_sched=value, submit_queues=1, poll_queues=0) as disk:
        assert disk.scheduler() == scheduler


@needs("attribute:blocking", symbol="BLK_DEBUG_FS")
@pytest.mark.parametrize("value", ["0", "1"])
def test_blocking_sets_the_queue_flag(driver: Driver, value: str) -> None:
    with driver.disk(blocking=value) as disk:
        assert ("BLOCKING" in flags(disk)) == (value == "1")
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=4 iflag=direct status=none")


@needs("attribute:memory_backed", symbol="BLK_DEBUG_FS")
def test_memory_backed_disk_is_blocking(driver: Driver) -> None:
    """Writes may wait for memory, so memory_backed sets blocking (null_validate_conf())."""
    with driver.disk(memory_backed=1, blocking=0) as disk:
        assert disk.attribute("blocking") == "1"
        assert "BLOCKING" in flags(disk)


@needs("attribute:shared_tags", symbol="BLK_DEBUG_FS", program="fio")
def test_disks_share_a_tag_set(driver: Driver) -> None:
    """Two disks use one tag set, as their queue flags show, and both work under load."""
    with driver.disk(shared_tags=1) as busy, driver.disk(shared_tags=1) as other:
        for disk in (busy, other):
            assert "TAG_QUEUE_SHARED" in flags(disk)
        with background_io(busy):
            load = fio(other, rw="randread", bs="4k", size="512k", ioengine="libaio", iodepth=64)
        assert load.read_bytes == 512 << 10


@needs("attribute:shared_tags", program="fio")
def test_disk_with_shared_tags_is_removed_under_io(driver: Driver) -> None:
    """The removed disk returns its tags, and I/O on the other disk goes on."""
    with driver.disk(shared_tags=1) as disk, background_io(disk, iodepth=64):
        other = driver.create({"shared_tags": "1"})
        with background_io(other, survives=False, iodepth=64):
            driver.remove(other)
        assert not other.exists()


@needs("attribute:shared_tags", "attribute:submit_queues")
def test_submit_queues_cannot_change_with_shared_tags(driver: Driver) -> None:
    with driver.disk(shared_tags=1) as disk:
        assert disk.set_attribute("submit_queues", "2") == errno.EINVAL


@needs("attribute:shared_tag_bitmap", symbol="BLK_DEBUG_FS")
def test_shared_tag_bitmap_sets_the_queue_flag(driver: Driver) -> None:
    with driver.disk(shared_tag_bitmap=1, submit_queues=2) as disk:
        assert "TAG_HCTX_SHARED" in flags(disk)
        disk.console.check(f"dd if={disk.path} of=/dev/null bs=4k count=4 iflag=direct status=none")


@needs("attribute:use_per_node_hctx")
def test_use_per_node_hctx_makes_one_queue_per_node(driver: Driver) -> None:
    nodes = driver.console.run("ls -d /sys/devices/system/node/node[0-9]* 2> /dev/null").output
    with driver.disk(use_per_node_hctx=1, submit_queues=2) as disk:
        assert disk.attribute("submit_queues") == str(max(1, len(nodes.split())))


@needs("attribute:discard", "attribute:memory_backed")
@pytest.mark.parametrize(("memory_backed", "kept"), [("0", "0"), ("1", "1")])
def test_discard_needs_memory_backing(driver: Driver, memory_backed: str, kept: str) -> None:
    """Without memory backing, null_config_discard() turns discard off."""
    with driver.disk(memory_backed=memory_backed, discard=1) as disk:
        assert disk.attribute("discard") == kept
        assert (disk.queue_number("discard_max_bytes") > 0) == (kept == "1")


@needs("attribute:cache_size", "attribute:fua")
@pytest.mark.parametrize("fua", ["0", "1"])
def test_a_cache_shows_in_the_queue(driver: Driver, fua: str) -> None:
    with driver.disk(**driver.persistent_attributes(), cache_size=4, fua=fua) as disk:
        assert disk.queue("write_cache") == "write back"
        assert disk.queue("fua") == fua
    with driver.disk(cache_size=4, memory_backed=0) as disk:
        assert disk.attribute("cache_size") == "0", "the disk has a cache but no data"
        assert disk.queue("write_cache") == "write through"


@needs("attribute:memory_backed", "attribute:discard", program="fio")
@feature("memory_backed", "discard")
def test_discards_race_with_writes(driver: Driver, budget: Budget) -> None:
    """Pages are freed and allocated while writers use them.

    The range is small, so that two discards often hit the same page.
    """
    runtime = f"{max(1.0, budget.seconds(2.0)) * 1000:.0f}ms"
    attributes = {**driver.persistent_attributes(), "discard": 1, "size": 16}
    load: dict[str, Any] = {"rw": "randwrite", "bs": "16k", "size": "64k"}
    with driver.disk(**attributes) as disk, background_io(disk, **load):
        disk.console.check(
            f"fio --name=trim --filename={disk.path} --direct=1 --rw=randtrim --bs=4k --size=64k "
            f"--norandommap --numjobs=2 --thread --ioengine=psync --time_based=1 "
            f"--runtime={runtime} > /tmp/trim"
        )


@needs("attribute:memory_backed")
@feature("memory_backed")
def test_removed_disk_frees_its_memory(driver: Driver) -> None:
    def free_after_use() -> int:
        """Fill and remove a disk of 64 MiB; return the free memory in KiB."""
        with driver.disk(**driver.persistent_attributes(), size=64) as disk:
            disk.console.check(
                f"dd if=/dev/zero of={disk.path} bs=1M count=64 oflag=direct status=none"
            )
        return int(
            driver.console.check(
                "echo 3 > /proc/sys/vm/drop_caches; awk '/^MemFree/ { print $2 }' /proc/meminfo"
            )
        )

    before = free_after_use()
    free_after_use()
    leaked = before - free_after_use()
    assert leaked < 64 << 10, f"two removed disks of 64 MiB kept {leaked} KiB"


@needs("attribute:memory_backed")
@feature("memory_backed")
@smoke
def test_data_survives_a_power_cycle(driver: Driver) -> None:
    """The data belongs to the configfs directory and outlives the disk."""
    with driver.disk(**driver.persistent_attributes()) as disk:
        disk.console.check(
            f"head -c 1M /dev/urandom > /tmp/data; "
            f"dd if=/tmp/data of={disk.path} bs=1M oflag=direct status=none; "
            f"echo 0 > {disk.directory}/power; echo 1 > {disk.directory}/power; "
            f"dd if={disk.path} bs=1M count=1 iflag=direct status=none | cmp - /tmp/data"
        )
