//! A virtual CPU: what it is told about itself, how it starts, and what it does.

use std::convert::Infallible;

use anyhow::{Context as _, bail};
use kvm_bindings::{CpuId, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, kvm_enable_cap, kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::Cli;
use crate::devices::Devices;
use crate::machine::Boot;

const LEAF_FEATURES: u32 = 1;
const ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
const KVM_FEATURE_PV_UNHALT: u32 = 1 << 7;
const KVM_HINTS_REALTIME: u32 = 1 << 0;

/// What CPUID says, and what KVM holds it to.
pub(crate) fn set_up(vcpu: &VcpuFd, mut cpuid: CpuId, id: u8, cli: &Cli) -> anyhow::Result<()> {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            LEAF_FEATURES => {
                // APIC id, and how many ids there are.
                entry.ebx = entry.ebx & 0xffff | u32::from(cli.cpus) << 16 | u32::from(id) << 24;
                entry.ecx |= ECX_HYPERVISOR;
            }
            LEAF_TOPOLOGY => entry.edx = id.into(),
            LEAF_KVM_FEATURES => {
                if cli.hide_unhalt {
                    entry.eax &= !KVM_FEATURE_PV_UNHALT;
                }
                if cli.realtime {
                    entry.edx |= KVM_HINTS_REALTIME;
                }
            }
            _ => {}
        }
    }
    if cli.hide_unhalt {
        let mut cap = kvm_enable_cap { cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID, ..Default::default() };
        cap.args[0] = 1;
        vcpu.enable_cap(&cap).context("this KVM cannot refuse hypercalls that it does not offer")?;
    }
    vcpu.set_cpuid2(&cpuid).context("KVM does not take this CPUID")
}

/// PVH's entry state: 32-bit protected mode, flat, paging off.
pub(crate) fn point_at(vcpu: &VcpuFd, boot: Boot) -> anyhow::Result<()> {
    const CR0: u64 = 1 << 0 | 1 << 4; // protection, extension type
    const CODE: u8 = 0xb;
    const DATA: u8 = 0x3;
    const TSS: u8 = 0xb;
    let flat = |selector, type_| kvm_segment {
        selector,
        type_,
        limit: u32::MAX,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Default::default()
    };
    let mut special = vcpu.get_sregs().context("KVM does not tell the registers")?;
    special.cs = flat(0x8, CODE);
    (special.ds, special.es, special.ss) = (flat(0x10, DATA), flat(0x10, DATA), flat(0x10, DATA));
    special.tr = kvm_segment { type_: TSS, limit: 0x67, present: 1, ..Default::default() };
    special.cr0 = CR0;
    vcpu.set_sregs(&special).context("KVM does not take the segments")?;
    let registers = kvm_regs { rip: boot.entry, rbx: boot.start_info, rflags: 2, ..Default::default() };
    vcpu.set_regs(&registers).context("KVM does not take the registers")
}

/// Runs it. There is no end but that of the process.
pub(crate) fn run(mut vcpu: VcpuFd, devices: &Devices) -> anyhow::Result<Infallible> {
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(port, data)) => devices.write(port, data),
            Ok(VcpuExit::IoIn(port, data)) => devices.read(port, data),
            // Nothing is there: reads as all ones.
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(!0),
            Ok(VcpuExit::MmioWrite(..) | VcpuExit::Intr) => {}
            Ok(VcpuExit::Shutdown) => bail!("the guest has shut down: a triple fault"),
            Ok(other) => bail!("KVM does not know how to go on: {other:?}"),
            // A signal; or not yet, of a virtual CPU that waits for its SIPI.
            Err(error) if matches!(error.errno(), INTERRUPTED | AGAIN) => {}
            Err(error) => return Err(error).context("cannot run the virtual CPU"),
        }
    }
}

const INTERRUPTED: i32 = 4;
const AGAIN: i32 = 11;
