// SPDX-License-Identifier: GPL-2.0-or-later

//! A null block driver, one of Blockyard's examples.
//!
//! One blk-mq disk, `/dev/rustnull0`, with one hardware queue. Every request succeeds at once
//! without moving data: writes are discarded, and reads leave their buffers unchanged.

use kernel::{
    block::{
        mq::{
            gen_disk::{GenDisk, GenDiskBuilder},
            Operations, Request, TagSet,
        },
        SECTOR_SIZE,
    },
    prelude::*,
    sizes::SZ_1M,
    sync::{aref::ARef, Arc},
};

const BLOCK_SIZE: u32 = 512;
const QUEUES: u32 = 1;
const QUEUE_DEPTH: u32 = 128;

module! {
    type: RustNull,
    name: "rust_null",
    authors: ["Blockyard"],
    description: "A null disk in Rust",
    license: "GPL",
    params: {
        size_mib: u32 {
            default: 256,
            description: "Capacity of the disk in MiB, at least 1 (default 256)",
        },
    },
}

struct RustNull {
    _disk: Owned,
}

impl kernel::Module for RustNull {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        let size_mib = module_parameters::size_mib.value();
        Ok(Self {
            _disk: Owned(NullDisk::create(size_mib)?),
        })
    }
}

/// The disk; dropping it removes it from the system.
///
/// A module has to be `Send` and `Sync`, because it may be loaded and unloaded by different
/// threads. In Linux 7.3 a `GenDisk` is neither, because its `TagSet` does not implement them.
struct Owned(#[expect(dead_code, reason = "held to be dropped")] GenDisk<NullDisk>);

// SAFETY: The disk and its tags are not bound to a thread: any task that may sleep can remove them
// from the block layer, and `NullDisk` has no data.
unsafe impl Send for Owned {}

// SAFETY: A shared reference gives no access: the field is private and never read.
unsafe impl Sync for Owned {}

struct NullDisk;

impl NullDisk {
    fn create(size_mib: u32) -> Result<GenDisk<Self>> {
        if size_mib == 0 {
            pr_err!("size_mib=0: the disk needs at least 1 MiB\n");
            return Err(EINVAL);
        }
        let tags = Arc::pin_init(TagSet::new(QUEUES, QUEUE_DEPTH, 1), GFP_KERNEL)?;
        // No overflow: 32 bits of MiB are 43 bits of sectors.
        let sectors = u64::from(size_mib) * (SZ_1M as u64 / u64::from(SECTOR_SIZE));
        let disk = GenDiskBuilder::new()
            .logical_block_size(BLOCK_SIZE)?
            .physical_block_size(BLOCK_SIZE)?
            .capacity_sectors(sectors)
            .build(fmt!("rustnull0"), tags, ())?;
        pr_info!("rustnull0: {size_mib} MiB in blocks of {BLOCK_SIZE} bytes\n");
        Ok(disk)
    }
}

#[vtable]
impl Operations for NullDisk {
    type QueueData = ();

    fn queue_rq(_queue_data: (), request: ARef<Request<Self>>, _is_last: bool) -> Result {
        // Fails only if there is another reference, and we gave none away.
        Request::end_ok(request).map_err(|_| EIO)
    }

    fn commit_rqs(_queue_data: ()) {}

    fn complete(request: ARef<Request<Self>>) {
        // Never called: the block layer calls it only after `Request::complete`.
        let _ = Request::end_ok(request);
    }
}
