# SPDX-License-Identifier: GPL-2.0-or-later
"""File systems on the disk: format, mount, fill, remount, verify, fsck."""

from collections.abc import Iterator

import pytest

from blockyard.modules.disk import Disk
from blockyard.modules.driver import Driver
from blockyard.tests.harness.requirements import feature, needs, skip, smoke, waits

pytestmark = [feature("file systems"), waits()]

MAKE = {
    "ext2": ("mkfs.ext2 -q -F", "fsck.ext2 -f -n"),
    "ext4": ("mkfs.ext4 -q -F", "fsck.ext4 -f -n"),
    "minix": ("mkfs.minix -3", "fsck.minix -f"),
    "xfs": ("mkfs.xfs -q -f", "xfs_repair -n"),
}


XFS_MIB = 320  # mkfs.xfs refuses less than 300 MiB


@pytest.fixture
def large_disk(driver: Driver) -> Iterator[Disk]:
    """A disk that keeps its data, large enough for XFS where the size is an attribute."""
    size = {"size": str(XFS_MIB)} if "attribute:size" in driver.capabilities else {}
    with driver.disk(**driver.persistent_attributes(), **size) as disk:
        yield disk


@pytest.mark.parametrize("kind", MAKE)
@needs("persistent")
@smoke
def test_files_survive_a_remount(large_disk: Disk, kind: str) -> None:
    disk = large_disk
    make, check = MAKE[kind]
    console = disk.console
    if kind == "xfs" and disk.size_bytes < XFS_MIB << 20:
        skip("hardware", f"the disk is smaller than the {XFS_MIB} MiB that XFS needs")
    if console.run(f"modprobe -q {kind}; grep -qw {kind} /proc/filesystems").exit_code:
        skip("kernel", f"this kernel does not support {kind}")
    if console.run(f"command -v {make.split()[0]}").exit_code:
        skip("guest", f"the guest has no {make.split()[0]}")
    console.check(f"{make} {disk.path}", timeout_s=120)
    console.check(
        f"""
        mkdir -p /tmp/mnt
        trap 'umount /tmp/mnt 2> /dev/null || true' EXIT
        mount -t {kind} {disk.path} /tmp/mnt
        mkdir /tmp/mnt/folder
        for file in {{1..20}}; do
            head -c $((file * 4567)) /dev/urandom > /tmp/mnt/folder/$file
        done
        head -c 4M /dev/urandom > /tmp/mnt/large
        (cd /tmp/mnt; sha256sum folder/* large) > /tmp/sums
        rm /tmp/mnt/folder/7
        umount /tmp/mnt
        blockdev --flushbufs {disk.path}
        mount -t {kind} {disk.path} /tmp/mnt
        (cd /tmp/mnt; grep -v folder/7$ /tmp/sums | sha256sum --check --quiet)
        test ! -e /tmp/mnt/folder/7
        umount /tmp/mnt
        {check} {disk.path} > /tmp/fsck 2>&1 || {{ cat /tmp/fsck; exit 1; }}
        wipefs --quiet --all --force {disk.path}""",
        timeout_s=120,
    )
