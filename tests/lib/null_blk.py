# SPDX-License-Identifier: GPL-2.0-or-later
"""null_blk for the suites: what it promises, and what blk-mq says of its queues."""

from __future__ import annotations

from blockyard.modules.disk import Disk

CONFIGFS = "/sys/kernel/config/nullb"
DEBUGFS = "/sys/kernel/debug/block"

# What C null_blk has had up to 7.3; one that comes later is found by
# `abi/all_attributes_are_compared`.
ATTRIBUTES = (
    "badblocks",
    "badblocks_once",
    "badblocks_partial_io",
    "blocking",
    "blocksize",
    "cache_size",
    "completion_nsec",
    "discard",
    "fua",
    "home_node",
    "hw_queue_depth",
    "index",
    "irqmode",
    "max_sectors",
    "mbps",
    "memory_backed",
    "no_sched",
    "poll_queues",
    "power",
    "queue_mode",
    "rotational",
    "shared_tag_bitmap",
    "shared_tags",
    "size",
    "submit_queues",
    "use_per_node_hctx",
    "virt_boundary",
    "zone_append_max_sectors",
    "zone_capacity",
    "zone_full",
    "zone_max_active",
    "zone_max_open",
    "zone_nr_conv",
    "zone_offline",
    "zone_readonly",
    "zone_size",
    "zoned",
)


def flags(disk: Disk) -> set[str]:
    """What blk-mq's debugfs says of the first hardware queue; needs BLK_DEBUG_FS."""
    told = disk.console.check(f"cat {DEBUGFS}/{disk.name}/hctx0/flags")
    return set(told.replace("|", " ").split())
