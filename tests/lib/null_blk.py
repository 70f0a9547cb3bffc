# SPDX-License-Identifier: GPL-2.0-or-later
"""null_blk for the suites: its configfs attributes, and the flags of its hardware queues."""

from __future__ import annotations

from blockyard.modules.disk import Disk

CONFIGFS = "/sys/kernel/config/nullb"
DEBUGFS = "/sys/kernel/debug/block"

# Attributes of C null_blk up to Linux 7.3; `abi/all_attributes_are_compared` fails for newer ones.
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
    """The flags of the first hardware queue in debugfs; needs BLK_DEBUG_FS."""
    output = disk.console.check(f"cat {DEBUGFS}/{disk.name}/hctx0/flags")
    return set(output.replace("|", " ").split())
