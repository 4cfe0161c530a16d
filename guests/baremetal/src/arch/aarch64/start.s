// From the machine's entry to Rust, the same for all CPUs: at EL1, the MMU off, interrupts masked. QEMU starts the first one here,
// PSCI's CPU_ON the others.
//
// Exclusives need normal, cacheable memory, so the MMU comes first.

.set CURRENT_EL1, 1 << 2
.set MPIDR_AFF0, 0xff
.set CPACR_FPEN, 3 << 20                        // no trap of floating point and SIMD, which `core` uses
.set ICC_SRE_SRE, 1 << 0

.set MAIR_DEVICE_nGnRE, 0x04                    // index 0
.set MAIR_NORMAL_WB, 0xff                       // index 1

// 39 bits of address, pages of 4 KiB: translation begins at level 1. Walks are cacheable, inner shareable. No TTBR1.
.set TCR_T0SZ, 64 - 39
.set TCR_IRGN0_WB, 1 << 8
.set TCR_ORGN0_WB, 1 << 10
.set TCR_SH0_INNER, 3 << 12
.set TCR_EPD1, 1 << 23
.set TCR_IPS_36, 1 << 32

.set SCTLR_RES1, 0x30d00800                     // of Armv8.0; since then LSMAOE, nTLSMD, SPAN, EIS, TSCXT, EOS
.set SCTLR_M, 1 << 0
.set SCTLR_C, 1 << 2
.set SCTLR_SA, 1 << 3
.set SCTLR_I, 1 << 12

.set BLOCK, 1 << 0
.set ATTR_NORMAL, 1 << 2
.set INNER_SHAREABLE, 3 << 8
.set ACCESSED, 1 << 10
.set PXN, 1 << 53
.set UXN, 1 << 54

.section .boot.text, "ax"
.globl boot_entry
boot_entry:
    msr daifset, #0xf
    mrs x0, CurrentEL
    cmp x0, #CURRENT_EL1
    b.ne 1f
    // The CPU's number is its affinity 0, as it is for up to sixteen CPUs of this machine.
    mrs x1, mpidr_el1
    and x1, x1, #MPIDR_AFF0
    cmp x1, #{max_cpus}
    b.hs 1f

    ldr x0, =(MAIR_NORMAL_WB << 8) | MAIR_DEVICE_nGnRE
    msr mair_el1, x0
    ldr x0, =TCR_T0SZ | TCR_IRGN0_WB | TCR_ORGN0_WB | TCR_SH0_INNER | TCR_EPD1 | TCR_IPS_36
    msr tcr_el1, x0
    ldr x0, =boot_level1
    msr ttbr0_el1, x0
    tlbi vmalle1
    ic iallu
    dsb nsh
    isb
    ldr x0, =SCTLR_RES1 | SCTLR_M | SCTLR_C | SCTLR_SA | SCTLR_I
    msr sctlr_el1, x0
    mov x0, #CPACR_FPEN
    msr cpacr_el1, x0
    ldr x0, =vectors
    msr vbar_el1, x0
    // Interrupts off, as `irq` has it; masked besides, until there is somebody to handle them.
    mrs x0, icc_sre_el1
    orr x0, x0, #ICC_SRE_SRE
    msr icc_sre_el1, x0
    isb
    mov x0, #{irqs_off}
    msr icc_pmr_el1, x0

    msr spsel, #1
    ldr x0, =boot_stacks
    add x2, x1, #1
    mov x3, #{stack_size}
    madd x0, x2, x3, x0
    mov sp, x0
    mov x29, xzr
    mov x30, xzr
    ldr x0, ={tree}
    bl {start}
1:  wfi
    b 1b
.ltorg

// Each address to itself, in blocks of 1 GiB: devices, then RAM.
.section .data.boot, "aw"
.balign 4096
boot_level1:
    .quad 0x00000000 + (UXN | PXN | ACCESSED | BLOCK)
    .quad 0x40000000 + (UXN | ACCESSED | INNER_SHAREABLE | ATTR_NORMAL | BLOCK)
    .fill 510, 8, 0

.section .bss.boot, "aw", @nobits
.balign 4096
boot_stacks:
    .skip {max_cpus} * {stack_size}
