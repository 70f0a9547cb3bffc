# SPDX-License-Identifier: GPL-2.0-or-later
"""I/O queues: number, size, mapping to CPUs, transfer size, PRP lists and SGLs."""

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
    lists = nvme.read(f"{nvme.disk().sysfs}/mq/*/cpu_list")
    return [[int(cpu) for cpu in line.split(",")] for line in lists.splitlines()]


def interrupts(nvme: Nvme) -> list[int]:
    """The number of interrupts of each I/O queue, in the order of the queues."""
    lines = re.findall(rf"^ *\d+:(.*?){nvme.names[0]}q(\d+)$", nvme.read("/proc/interrupts"), re.M)
    counts = {int(queue): sum(map(int, re.findall(r" (\d+)\b", line))) for line, queue in lines}
    return [counts[queue] for queue in sorted(counts) if queue]


@smoke
def test_each_cpu_has_a_queue(nvme: Nvme) -> None:
    cpus = nvme.topology.cpus
    if cpus > nvme.topology.controllers[0].max_ioqpairs:
        skip("hardware", "the controller has fewer queues than the guest has CPUs")
    assert nvme.read(f"{nvme.sysfs()}/queue_count") == str(cpus + 1)  # including the admin queue
    assert sorted(cpus_of_queues(nvme)) == [[cpu] for cpu in range(cpus)]


@topology("queues")
def test_queues_are_limited_by_the_controller(nvme: Nvme) -> None:
    """Two queues serve four CPUs; each CPU belongs to one of them."""
    limit = nvme.topology.controllers[0].max_ioqpairs
    assert nvme.read(f"{nvme.sysfs()}/queue_count") == str(limit + 1)
    queues = cpus_of_queues(nvme)
    assert len(queues) == limit
    assert sorted(cpu for cpus in queues for cpu in cpus) == [0, 1, 2, 3]
    feature = nvme.query(f"get-feature {nvme.device()} --feature-id=7 --human-readable")
    assert str(limit) in str(feature)


@topology("queues")
@needs(program="fio")
def test_commands_are_limited_by_the_queue_size(nvme: Nvme) -> None:
    """A full queue leaves one entry empty; at least half of the entries are used under load."""
    disk, entries = nvme.disk(), nvme.topology.controllers[0].mqes + 1
    assert nvme.read(f"{nvme.sysfs()}/sqsize") == str(entries - 1)
    assert disk.queue_number("nr_requests") <= entries - 1
    with background_io(disk, rw="randread", bs="4k", iodepth=128, numjobs=2):
        samples = disk.console.check(
            f"for i in {{1..300}}; do read -r reads _ < {disk.sysfs}/inflight; echo $reads; done"
        )
    most = max(map(int, samples.split()))
    assert entries // 2 < most <= 2 * (entries - 1)


@topology("queues")
@needs(program="fio")
def test_each_cpu_uses_its_queue(nvme: Nvme) -> None:
    """Requests of a CPU complete by interrupts of the queue that serves the CPU."""
    disk = nvme.disk()
    for number, cpus in enumerate(cpus_of_queues(nvme)):
        before = interrupts(nvme)
        for cpu in cpus:
            disk.console.check(
                f"taskset --cpu-list {cpu}"
                f" dd if={disk.path} of=/dev/null bs=4k count=64 iflag=direct status=none"
            )
        risen = [after - count for after, count in zip(interrupts(nvme), before, strict=True)]
        assert risen[number] >= 32 * len(cpus), risen
        assert risen[number] > 4 * sum(risen[:number] + risen[number + 1 :]), risen


@topology("queues")
@needs(program="fio")
def test_transfers_are_split_at_mdts(nvme: Nvme) -> None:
    """A read larger than MDTS is split; a larger passthrough command is refused."""
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
    for size, allowed in ((limit, True), (2 * limit, False)):
        blocks = size // disk.block_size
        read = nvme.console.run(
            f"nvme io-passthru {disk.path} --opcode=2 --namespace-id=1 --cdw12={blocks - 1}"
            f" --data-len={size} --read --raw-binary > /tmp/back"
        )
        assert (read.exit_code == 0) == allowed, read.output
        assert allowed or "Invalid argument" in read.output


@needs("module", program="fio")
def test_polled_io_needs_no_interrupts(driver: Driver, nvme: Nvme) -> None:
    """Polled requests complete without interrupts."""
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
        assert sum(interrupts(nvme)) - before < 128, "256 polled requests raised interrupts"
    finally:
        driver.unload()
        driver.load()
        nvme.settle()


@needs(program="fio")
def test_prp_lists_of_any_length_work(nvme: Nvme) -> None:
    """Lengths around the 32 entries of a small PRP list (drivers/nvme/host/pci.c), without SGLs."""
    with sgl_threshold(nvme, 0):
        verify_sizes(nvme, [pages * 4096 for pages in (32, 33, 34)])


@needs(program="fio")
def test_scatter_gather_lists_work(nvme: Nvme) -> None:
    """SGLs with one entry, which is held in the command itself, and with many."""
    if nvme.query(f"id-ctrl {nvme.device()}")["sgls"] & 3 == 0:
        skip("hardware", "the controller has no SGLs")
    with sgl_threshold(nvme, 1):
        verify_sizes(nvme, [4 << 10, 128 << 10, 512 << 10])


@contextmanager
def sgl_threshold(nvme: Nvme, size: int) -> Iterator[None]:
    """Use SGLs for requests with segments of this average size in bytes or more; 0: never."""
    path = "/sys/module/nvme/parameters/sgl_threshold"
    before = read_file(nvme.console, path)
    assert write_file(nvme.console, path, str(size)) == 0
    try:
        yield
    finally:
        assert write_file(nvme.console, path, before) == 0


def verify_sizes(nvme: Nvme, sizes: list[int]) -> None:
    """Write and read back with requests of each size in bytes."""
    load = verified(
        nvme.disk(),
        block_sizes=sizes,
        size="2M",
        ioengine="libaio",
        iodepth=16,
        iodepth_batch_submit=8,
    )
    assert load.read_bytes == load.written_bytes
