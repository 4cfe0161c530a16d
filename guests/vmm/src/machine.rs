//! The machine: KVM, memory, and what lies there when the guest starts.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, bail};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use linux_loader::cmdline::Cmdline;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use linux_loader::loader::{Elf, KernelLoader, load_cmdline};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::Cli;
use crate::vcpu;

// In the first page, which the kernel reads before it uses low memory.
const START_INFO: GuestAddress = GuestAddress(0x6000);
const MEMORY_MAP: GuestAddress = GuestAddress(0x6100);
const COMMAND_LINE: GuestAddress = GuestAddress(0x7000);
const COMMAND_LINE_BYTES: usize = 0x1000;

const START_INFO_MAGIC: u32 = 0x336e_c578;
const MEMORY_MAP_RAM: u32 = 1;

/// Below the BIOS area, where nothing else is: three pages that VT-x without unrestricted guest wants, and one more.
const TSS_ADDRESS: usize = 0xfffb_d000;
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

#[derive(Debug)]
pub(crate) struct Machine {
    vm: VmFd,
    memory: GuestMemoryMmap,
    cpuid: CpuId,
}

/// How the first virtual CPU starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boot {
    pub(crate) entry: u64,
    pub(crate) start_info: u64,
}

impl Machine {
    /// With so many MiB of memory.
    pub(crate) fn new(mebibytes: u16) -> anyhow::Result<Self> {
        let kvm = Kvm::new().context("cannot open /dev/kvm")?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM does not tell its CPUID")?;
        let vm = kvm.create_vm().context("cannot create a virtual machine")?;
        vm.set_tss_address(TSS_ADDRESS).context("cannot place the TSS")?;
        vm.set_identity_map_address(IDENTITY_MAP_ADDRESS).context("cannot place the identity map")?;
        vm.create_irq_chip().context("cannot create interrupt controllers")?;
        let bytes = usize::from(mebibytes) << 20;
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).context("no memory for the guest")?;
        for (slot, region) in (0..).zip(memory.iter()) {
            let host = memory.get_host_address(region.start_addr()).context("memory without an address")?;
            let region = kvm_userspace_memory_region {
                slot,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: host.addr() as u64,
                flags: 0,
            };
            // SAFETY: the region is mapped, and stays so until the process ends: `memory` lives as long as the machine,
            // which nobody drops before.
            unsafe { vm.set_user_memory_region(region) }.context("cannot give the guest its memory")?;
        }
        Ok(Self { vm, memory, cpuid })
    }

    /// Puts the kernel and its command line into memory.
    pub(crate) fn load(&self, kernel: &Path, line: &str) -> anyhow::Result<Boot> {
        let mut file = File::open(kernel).with_context(|| format!("cannot open {}", kernel.display()))?;
        let loaded = Elf::load(&self.memory, None, &mut file, None)
            .with_context(|| format!("cannot load {}", kernel.display()))?;
        let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
            bail!("{} has no PVH entry", kernel.display());
        };
        let mut words = Cmdline::new(COMMAND_LINE_BYTES)?;
        if !line.is_empty() {
            words.insert_str(line).context("not a command line")?;
        }
        load_cmdline(&self.memory, COMMAND_LINE, &words).context("cannot place the command line")?;
        let bytes = self.memory.iter().map(GuestMemoryRegion::len).sum();
        let map = [hvm_memmap_table_entry { addr: 0, size: bytes, type_: MEMORY_MAP_RAM, reserved: 0 }];
        let start_info = hvm_start_info {
            magic: START_INFO_MAGIC,
            version: 1,
            cmdline_paddr: COMMAND_LINE.0,
            memmap_paddr: MEMORY_MAP.0,
            memmap_entries: 1,
            ..Default::default()
        };
        let mut parameters = BootParams::new(&start_info, START_INFO);
        parameters.set_sections(&map, MEMORY_MAP);
        PvhBootConfigurator::write_bootparams(&parameters, &self.memory)
            .context("cannot place start_info")?;
        Ok(Boot { entry: entry.0, start_info: START_INFO.0 })
    }

    /// Virtual CPU `id`, which runs when it is told to; all but the first then wait for a SIPI.
    pub(crate) fn vcpu(&self, id: u8, cli: &Cli, boot: Boot) -> anyhow::Result<VcpuFd> {
        let vcpu =
            self.vm.create_vcpu(id.into()).with_context(|| format!("cannot create virtual CPU {id}"))?;
        vcpu::set_up(&vcpu, self.cpuid.clone(), id, cli)?;
        if id == 0 {
            vcpu::point_at(&vcpu, boot)?;
        }
        Ok(vcpu)
    }
}
