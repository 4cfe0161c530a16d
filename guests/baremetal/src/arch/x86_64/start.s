# From the hypervisor's entry to Rust, for the first CPU and for the others.
#
#   PVH:   32-bit protected mode, paging off, ebx = start_info (Xen's docs/misc/pvh.pandoc)
#   SIPI:  16-bit real mode at TRAMPOLINE:0
#   both:  32-bit with our GDT -> long mode with the identity map -> Rust on a stack of the CPU's own

.set CR0_PE, 1 << 0
.set CR0_MP, 1 << 1
.set CR0_EM, 1 << 2
.set CR0_TS, 1 << 3
.set CR0_NE, 1 << 5
.set CR0_WP, 1 << 16
.set CR0_PG, 1 << 31
.set CR4_PAE, 1 << 5
.set CR4_OSFXSR, 1 << 9
.set CR4_OSXMMEXCPT, 1 << 10
.set MSR_EFER, 0xc0000080
.set EFER_LME, 1 << 8
.set EFER_NXE, 1 << 11

.section .note.Xen, "a", @note
.balign 4
    .long 4, 4, 18              # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_start

.section .boot.text, "ax"
.code32
.globl pvh_start
pvh_start:
    cli
    cld
    mov esi, ebx
    lgdt [boot_gdt_pointer]
    ljmp 0x08, offset enter_long_mode

# All CPUs: esi is start_info, or 0 for all but the first.
enter_long_mode:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov eax, cr4
    or eax, CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, MSR_EFER
    rdmsr
    or eax, EFER_LME
    wrmsr
    mov eax, cr0
    and eax, ~(CR0_EM | CR0_TS)
    or eax, CR0_PE | CR0_MP | CR0_NE | CR0_WP | CR0_PG
    mov cr0, eax
    ljmp 0x18, offset in_long_mode

.code64
in_long_mode:
    mov edi, esi
    # The CPU's number is its initial APIC id.
    mov eax, 1
    cpuid
    shr ebx, 24
    mov esi, ebx
    cmp esi, {max_cpus}
    jae 1f
    lea eax, [rsi + 1]
    imul rax, rax, {stack_size}
    lea rsp, [boot_stacks + rax]
    xor ebp, ebp
    call {start}
1:  cli
    hlt
    jmp 1b

# Copied below 1 MiB, where SIPI starts a CPU. Addresses within are relative to its own segment.
.section .rodata.trampoline, "a"
.code16
.globl trampoline_start, trampoline_end
trampoline_start:
    cli
    cld
    .byte 0x2e, 0x66, 0x0f, 0x01, 0x16      # lgdt cs:[...], 32-bit base
    .word trampoline_gdt_pointer - trampoline_start
    mov eax, cr0
    or al, 1
    mov cr0, eax
    xor esi, esi
    .byte 0x66, 0xea                        # ljmp 0x08:32-bit offset
    .long enter_long_mode
    .word 0x08
.balign 4
trampoline_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
trampoline_end:

.section .rodata.boot, "a"
.balign 8
boot_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff                # 0x08: 32-bit code
    .quad 0x00cf93000000ffff                # 0x10: data
    .quad 0x00af9b000000ffff                # 0x18: 64-bit code
boot_gdt_end:
boot_gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

# The first 4 GiB, each address to itself, in pages of 2 MiB; the last GiB, where devices are, uncached.
.section .data.boot, "aw"
.balign 4096
boot_pml4:
    .quad boot_pdpt + 3
    .fill 511, 8, 0
boot_pdpt:
    .quad boot_pd + 0x0003
    .quad boot_pd + 0x1003
    .quad boot_pd + 0x2003
    .quad boot_pd + 0x3003
    .fill 508, 8, 0
boot_pd:
    .set page, 0
    .rept 1536
    .quad (page << 21) | 0x83
    .set page, page + 1
    .endr
    .rept 512
    .quad (page << 21) | 0x9b
    .set page, page + 1
    .endr

.section .bss.boot, "aw", @nobits
.balign 4096
boot_stacks:
    .skip {max_cpus} * {stack_size}
