# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O queues: as many and as long as the controller and the CPUs allow, and all of them used."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from blockyard.modules.disk import read_file, write_file
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, smoke, topology
from blockyard.tests.lib.fio import background_io, fio, verified
from blockyard.tests.lib.nvme import Nvme

pytestmark = [feature("queues"), needs("nvme", program="nvme")]


def cpus_of_queues(nvme: Nvme) -> list[list[int]]:
    """The CPUs that each hardware queue of the disk serves."""
    told = nvme.read(f"{nvme.disk().sysfs}/mq/*/cpu_list")
    return [[int(cpu) for cpu in line.split(",")] for line in told.splitlines()]


def interrupts(nvme: Nvme) -> list[int]:
    """How often each I/O queue has interrupted, in the order of the queues."""
    lines = re.findall(rf"^ *\d+:(.*?){nvme.names[0]}q(\d+)$", nvme.read("/proc/interrupts"), re.M)
    counts = {int(queue): sum(map(int, re.findall(r" (\d+)\b", line))) for line, queue in lines}
    return [counts[queue] for queue in sorted(counts) if queue]


@smoke
def test_each_cpu_has_a_queue(nvme: Nvme) -> None:
    cpus = nvme.topology.cpus
    if cpus > nvme.topology.controllers[0].max_ioqpairs:
        skip("hardware", "the controller has fewer queues than there are CPUs")
    assert nvme.read(f"{nvme.sysfs()}/queue_count") == str(cpus + 1)  # with the admin queue
    assert sorted(cpus_of_queues(nvme)) == [[cpu] for cpu in range(cpus)]


@topology("queues")
def test_queues_are_limited_by_the_controller(nvme: Nvme) -> None:
    """Two for four CPUs, each of which has one."""
    wanted = nvme.topology.controllers[0].max_ioqpairs
    assert nvme.read(f"{nvme.sysfs()}/queue_count") == str(wanted + 1)
    queues = cpus_of_queues(nvme)
    assert len(queues) == wanted
    assert sorted(cpu for cpus in queues for cpu in cpus) == [0, 1, 2, 3]
    told = nvme.query(f"get-feature {nvme.device()} --feature-id=7 --human-readable")
    assert str(wanted) in str(told)


@topology("queues")
@needs(program="fio")
def test_commands_are_limited_by_the_queue_size(nvme: Nvme) -> None:
    """MQES entries less the one that tells full from empty; as much is used, and never more."""
    disk, entries = nvme.disk(), nvme.topology.controllers[0].mqes + 1
    assert nvme.read(f"{nvme.sysfs()}/sqsize") == str(entries - 1)
    assert disk.queue_number("nr_requests") <= entries - 1
    with background_io(disk, rw="randread", bs="4k", iodepth=128, numjobs=2):
        told = disk.console.check(
            f"for one in {{1..300}}; do read -r reads _ < {disk.sysfs}/inflight; echo $reads; done"
        )
    most = max(map(int, told.split()))
    assert entries // 2 < most <= 2 * (entries - 1)


@topology("queues")
@needs(program="fio")
def test_each_cpu_uses_its_queue(nvme: Nvme) -> None:
    """What a CPU submits is interrupted for by the queue that serves the CPU."""
    disk = nvme.disk()
    for number, cpus in enumerate(cpus_of_queues(nvme)):
        before = interrupts(nvme)
        for cpu in cpus:
            disk.console.check(
                f"taskset --cpu-list {cpu}"
                f" dd if={disk.path} of=/dev/null bs=4k count=64 iflag=direct status=none"
            )
        risen = [after - one for after, one in zip(interrupts(nvme), before, strict=True)]
        assert risen[number] >= 32 * len(cpus), risen
        assert risen[number] > 4 * sum(risen[:number] + risen[number + 1 :]), risen


@topology("queues")
@needs(program="fio")
def test_transfers_are_split_at_mdts(nvme: Nvme) -> None:
    """MDTS: a larger read is several commands, one too large by passthrough is refused."""
    disk, limit = nvme.disk(), 4096 << nvme.topology.controllers[0].mdts
    assert disk.queue_number("max_hw_sectors_kb") << 10 == limit
    smart = f"smart-log {nvme.device()}"
    before = int(nvme.query(smart)["host_read_commands"])
    disk.console.check(
        f"""
        dd if=/tmp/nvme-data of={disk.path} bs=1M count=1 oflag=direct status=none
        dd if={disk.path} bs=1M count=1 iflag=direct status=none | cmp - /tmp/nvme-data"""
    )
    assert int(nvme.query(smart)["host_read_commands"]) - before >= (1 << 20) // limit
    for size, taken in ((limit, True), (2 * limit, False)):
        blocks = size // disk.block_size
        read = nvme.console.run(
            f"nvme io-passthru {disk.path} --opcode=2 --namespace-id=1 --cdw12={blocks - 1}"
            f" --data-len={size} --read --raw-binary > /tmp/back"
        )
        assert (read.exit_code == 0) == taken, read.output
        assert taken or "Invalid argument" in read.output


@needs("module", program="fio")
def test_polled_io_needs_no_interrupts(driver: Driver, nvme: Nvme) -> None:
    """Requests that are polled for complete without interrupts."""
    parameters = "/sys/module/nvme/parameters"
    if nvme.console.run(f"[ -e {parameters}/poll_queues ]").exit_code:
        skip("driver", f"{driver.name} has no parameter poll_queues", "parameter:poll_queues")
    queues = int(nvme.read(f"{nvme.sysfs()}/queue_count"))
    driver.unload()
    try:
        nvme.console.check("modprobe nvme poll_queues=1")
        nvme.settle()
        disk = nvme.disk()
        assert int(nvme.read(f"{nvme.sysfs()}/queue_count")) == queues + 1
        assert disk.queue("io_poll") == "1"
        before = sum(interrupts(nvme))
        load = fio(disk, rw="randread", bs="4k", size="1M", ioengine="io_uring", hipri=1)
        assert load.read_bytes == 1 << 20
        assert sum(interrupts(nvme)) - before < 128, "256 polled requests came by interrupt"
    finally:
        driver.unload()
        driver.load()
        nvme.settle()


@needs(program="fio")
def test_prp_lists_of_any_length_work(nvme: Nvme) -> None:
    """Around the 32 entries of a small list (drivers/nvme/host/pci.c), without SGLs."""
    with segments_from(nvme, 0):
        data_of_sizes(nvme, [pages * 4096 for pages in (32, 33, 34)])


@needs(program="fio")
def test_scatter_gather_lists_work(nvme: Nvme) -> None:
    """They are for large segments, unless asked for; a list of one entry stands in the command."""
    if nvme.query(f"id-ctrl {nvme.device()}")["sgls"] & 3 == 0:
        skip("hardware", "the controller has no SGLs")
    with segments_from(nvme, 1):
        data_of_sizes(nvme, [4 << 10, 128 << 10, 512 << 10])


@contextmanager
def segments_from(nvme: Nvme, size: int) -> Iterator[None]:
    """Requests of segments of this size, on average, go by SGLs; 0: none do."""
    threshold = "/sys/module/nvme/parameters/sgl_threshold"
    before = read_file(nvme.console, threshold)
    assert write_file(nvme.console, threshold, str(size)) == 0
    try:
        yield
    finally:
        assert write_file(nvme.console, threshold, before) == 0


def data_of_sizes(nvme: Nvme, sizes: list[int]) -> None:
    """Writes and reads back by requests of each size."""
    load = verified(
        nvme.disk(),
        block_sizes=sizes,
        size="2M",
        ioengine="libaio",
        iodepth=16,
        iodepth_batch_submit=8,
    )
    assert load.read_bytes == load.written_bytes
