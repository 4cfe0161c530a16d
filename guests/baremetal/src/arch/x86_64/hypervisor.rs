//! What runs below: who it is, what it offers to waiting CPUs.
//!
//! KVM's interface is that of Linux Documentation/virt/kvm/x86/{cpuid,msr,hypercalls}.rst.

use core::arch::asm;
use core::arch::x86_64::__cpuid;

use crosslock_core::primitive::{AtomicU32, Ordering};
use x86_64::registers::model_specific::Msr;

use crate::cpu::{self, MAX_CPUS};

const LEAF_VENDOR: u32 = 0;
const LEAF_FEATURES: u32 = 1;
const LEAF_HYPERVISOR: u32 = 0x4000_0000;
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;

const ECX_X2APIC: u32 = 1 << 21;
const ECX_HYPERVISOR: u32 = 1 << 31;

const KVM_FEATURE_STEAL_TIME: u32 = 1 << 5;
const KVM_FEATURE_PV_UNHALT: u32 = 1 << 7;
const KVM_HINTS_REALTIME: u32 = 1 << 0;

const MSR_KVM_STEAL_TIME: u32 = 0x4b56_4d03;
const STEAL_TIME_ENABLED: u64 = 1;
const VCPU_PREEMPTED: u32 = 1;

const KVM_HC_KICK_CPU: u64 = 5;

/// What CPUID says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hypervisor {
    /// Twelve letters; none where there is no hypervisor.
    signature: [u8; 12],
    pub(crate) is_there: bool,
    is_kvm: bool,
    features: u32,
    hints: u32,
    is_amd: bool,
}

/// Whether the CPU has the x2APIC's registers.
pub(super) fn has_x2apic() -> bool {
    __cpuid(LEAF_FEATURES).ecx & ECX_X2APIC != 0
}

impl Hypervisor {
    /// Asks the running CPU.
    pub(crate) fn find() -> Self {
        let features = __cpuid(LEAF_FEATURES);
        let mut found = Self {
            is_there: features.ecx & ECX_HYPERVISOR != 0,
            // "AuthenticAMD", of which the first four letters stand in ebx.
            is_amd: __cpuid(LEAF_VENDOR).ebx == u32::from_le_bytes(*b"Auth"),
            ..Self::default()
        };
        if found.is_there {
            let leaf = __cpuid(LEAF_HYPERVISOR);
            for (letters, word) in found.signature.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
                letters.copy_from_slice(&word.to_le_bytes());
            }
            found.is_kvm = found.signature == *b"KVMKVMKVM\0\0\0";
            // Old ones say 0 there and mean the next.
            if found.is_kvm && (leaf.eax == 0 || leaf.eax >= LEAF_KVM_FEATURES) {
                let leaf = __cpuid(LEAF_KVM_FEATURES);
                (found.features, found.hints) = (leaf.eax, leaf.edx);
            }
        }
        found
    }

    /// What it calls itself.
    pub(crate) fn name(&self) -> &str {
        core::str::from_utf8(&self.signature).unwrap_or("?").trim_end_matches('\0')
    }

    /// Whether a hypercall wakes a halted CPU.
    pub(crate) fn unhalts(&self) -> bool {
        self.features & KVM_FEATURE_PV_UNHALT != 0
    }

    /// Whether each virtual CPU has a CPU of its own.
    pub(crate) fn is_realtime(&self) -> bool {
        self.hints & KVM_HINTS_REALTIME != 0
    }

    /// Whether it tells who is preempted.
    pub(crate) fn has_steal_time(&self) -> bool {
        self.features & KVM_FEATURE_STEAL_TIME != 0
    }

    /// On each CPU: has the hypervisor tell about it.
    pub(crate) fn share_steal_time(&self) {
        if self.has_steal_time() {
            let at = core::ptr::from_ref(&STEAL_TIME[cpu::number()]).expose_provenance() as u64;
            // SAFETY: the hypervisor writes there from now on: atomics, 64 bytes, aligned to 64, at this very physical
            // address, for good.
            unsafe { Msr::new(MSR_KVM_STEAL_TIME).write(at | STEAL_TIME_ENABLED) };
        }
    }

    /// Wakes a CPU that is in HLT; one that is not does not stay in its next one. `false` where it was refused.
    pub(crate) fn kick(&self, cpu: usize) -> bool {
        let result: i64;
        // A hypercall that wakes a CPU. rbx is the compiler's, so it is put back. Stores before it are visible
        // to the other CPU first: the world switch orders them.
        if self.is_amd {
            // SAFETY: as above.
            unsafe {
                asm!("xchg rsi, rbx", "vmmcall", "xchg rsi, rbx", inlateout("rax") KVM_HC_KICK_CPU => result,
                    inout("rsi") 0u64 => _, in("rcx") cpu, options(nostack));
            }
        } else {
            // SAFETY: as above.
            unsafe {
                asm!("xchg rsi, rbx", "vmcall", "xchg rsi, rbx", inlateout("rax") KVM_HC_KICK_CPU => result,
                    inout("rsi") 0u64 => _, in("rcx") cpu, options(nostack));
            }
        }
        result == 0
    }
}

/// `struct kvm_steal_time`, of which only `preempted` is looked at.
#[repr(C, align(64))]
#[derive(Debug)]
struct StealTime {
    steal: [AtomicU32; 2],
    version: AtomicU32,
    flags: AtomicU32,
    /// The lowest byte is `preempted`; the others are padding.
    preempted: AtomicU32,
    padding: [AtomicU32; 11],
}

static STEAL_TIME: [StealTime; MAX_CPUS] = [const {
    StealTime {
        steal: [const { AtomicU32::new(0) }; 2],
        version: AtomicU32::new(0),
        flags: AtomicU32::new(0),
        preempted: AtomicU32::new(0),
        padding: [const { AtomicU32::new(0) }; 11],
    }
}; MAX_CPUS];

/// Whether `cpu` has been taken off its CPU, as far as the hypervisor tells.
pub(crate) fn is_preempted(cpu: usize) -> bool {
    STEAL_TIME[cpu].preempted.load(Ordering::Relaxed) & VCPU_PREEMPTED != 0
}
