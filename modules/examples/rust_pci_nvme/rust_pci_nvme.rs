// SPDX-License-Identifier: GPL-2.0-or-later

//! Binds to the NVMe controller that QEMU emulates and reads its registers, one of Blockyard's
//! examples.
//!
//! It maps BAR 0, reads registers and allocates memory for DMA. It writes no register, so the
//! controller never uses that memory, and its state is unchanged for the next driver.

use kernel::{
    device::Core,
    dma::{Coherent, Device, DmaMask},
    io::{register, Io},
    page::PAGE_SIZE,
    pci,
    prelude::*,
};

// Only QEMU's controller (vendor Red Hat, 0x1b36): with a match by class, this module would bind to
// the disks of the machine on which somebody tries it.
const QEMU_NVME: u32 = 0x0010;

// Registers of a controller: NVM Express Base Specification, "Controller Properties".
//
// CAP has 64 bits and is read in halves, as the specification allows: in Rust a BAR is aligned to
// 4 bytes, so a 64-bit access does not compile.
mod regs {
    use super::register;

    register! {
        /// Controller capabilities, lower half.
        pub(super) CAP_LO(u32) @ 0x0 {
            /// Entries of the largest queue, counted from 0.
            15:0 mqes;
            /// Longest time until the controller is ready, in units of 500 ms.
            31:24 to;
        }

        /// Controller capabilities, upper half.
        pub(super) CAP_HI(u32) @ 0x4 {
            /// Distance between doorbells: 4 bytes shifted by this.
            3:0 dstrd;
        }

        /// Version of the specification that the controller follows.
        pub(super) VS(u32) @ 0x8 {
            31:16 major;
            15:8 minor;
            7:0 tertiary;
        }
    }

    /// End of the last register that is read. `probe` fails if BAR 0 is smaller, and an access
    /// beyond it does not compile.
    pub(super) const END: usize = 0xc;
}

/// One bound controller.
///
/// It has all resources that the driver uses for a device. However the device is unbound, `Drop`
/// runs first, then the fields are dropped in order: the BAR is unmapped, the memory freed. The
/// lifetime is that of the binding, so the resources cannot be used after it and need no `Devres`.
struct Controller<'bound> {
    device: &'bound pci::Device,
    _bar: pci::Bar<'bound, { regs::END }>,
    buffer: Coherent<[u8]>,
}

struct ProbeDriver;

kernel::pci_device_table!(
    PCI_TABLE,
    <ProbeDriver as pci::Driver>::IdInfo,
    [(pci::DeviceId::from_id(pci::Vendor::REDHAT, QEMU_NVME), ())]
);

impl pci::Driver for ProbeDriver {
    type IdInfo = ();
    type Data<'bound> = Controller<'bound>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = &PCI_TABLE;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        // No bus mastering (`set_master`): the controller need not access our memory.
        //
        // In Linux 7.3, Rust can enable a device but not disable it: each bind increments the
        // device's `enable` in sysfs by one for good. That does not affect other drivers.
        device.enable_device_mem()?;
        let bar = device.iomap_region_sized::<{ regs::END }>(0, c"rust_pci_nvme")?;

        let (cap_lo, cap_hi) = (bar.read(regs::CAP_LO), bar.read(regs::CAP_HI));
        let vs = bar.read(regs::VS);
        dev_info!(
            device,
            "NVMe {}.{}.{} (VS {:#010x}), CAP {:#010x}{:08x}\n",
            vs.major().get(),
            vs.minor().get(),
            vs.tertiary().get(),
            vs.into_raw(),
            cap_hi.into_raw(),
            cap_lo.into_raw()
        );
        dev_info!(
            device,
            "queues of up to {} entries, doorbells every {} bytes, ready within {} ms\n",
            cap_lo.mqes().get() + 1,
            4 << cap_hi.dstrd().get(),
            cap_lo.to().get() * 500
        );

        // SAFETY: nothing has been allocated or mapped for this device yet.
        unsafe { device.dma_set_mask_and_coherent(DmaMask::new::<64>())? };
        let buffer = Coherent::zeroed_slice(device.as_ref(), PAGE_SIZE, GFP_KERNEL)?;
        dev_info!(device, "bound, {} bytes of DMA memory\n", buffer.size());

        Ok(Controller {
            device,
            _bar: bar,
            buffer,
        })
    }
}

impl Drop for Controller<'_> {
    fn drop(&mut self) {
        dev_info!(
            self.device,
            "unbound, giving back {} bytes of DMA memory\n",
            self.buffer.size()
        );
    }
}

kernel::module_pci_driver! {
    type: ProbeDriver,
    name: "rust_pci_nvme",
    authors: ["Blockyard"],
    description: "Looks at QEMU's NVMe controller, in Rust",
    license: "GPL",
}
