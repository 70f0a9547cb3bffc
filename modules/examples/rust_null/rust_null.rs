// SPDX-License-Identifier: GPL-2.0-or-later

//! A disk that forgets everything, for Blockyard's examples.
//!
//! One blk-mq disk, `/dev/rustnull0`, with one hardware queue. Every request is successful as soon
//! as it arrives, and no data is moved: what is written is gone, and a read leaves its buffer as it
//! was.

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

/// The disk for as long as the module is loaded: dropping it removes it from the system.
///
/// A module has to be `Send` and `Sync`, since one thread loads it and another unloads it. In
/// Linux 7.3 a `GenDisk` is neither, because its `TagSet` does not say that it is.
struct Owned(#[expect(dead_code, reason = "held to be dropped")] GenDisk<NullDisk>);

// SAFETY: The disk and its tags belong to no thread: the block layer lets any task that may sleep
// take them down, and `NullDisk` has no data of its own.
unsafe impl Send for Owned {}

// SAFETY: Nothing can be done with a shared reference: the field is private and never read.
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
        // Fails only if somebody else holds a reference too, and nobody was given one.
        Request::end_ok(request).map_err(|_| EIO)
    }

    fn commit_rqs(_queue_data: ()) {}

    fn complete(request: ARef<Request<Self>>) {
        // Never called: only `Request::complete` would have the block layer do so.
        let _ = Request::end_ok(request);
    }
}
