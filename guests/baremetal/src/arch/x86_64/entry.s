# Where the CPU comes in, and goes out, for interrupts and exceptions.
#
# A maskable interrupt comes in on this CPU's interrupt stack, and moves from there to the stack that it has interrupted,
# below its red zone, so that the interrupt stack is free again for the next one, which may nest. What it leaves there:
#
#       interrupted rsp ->  | ...                         |
#                           | red zone, 128 bytes         |
#                           | ss rsp rflags cs rip        |  for iretq
#                           | rax rcx rdx rsi rdi r8..r11 |  what a call may change
#   rsp, 16-aligned      -> | x87 and SSE state, 512      |
#
# An NMI stays on its own stack: it does not nest.

.section .text.entry, "ax"
.code64

.macro push_scratch
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
.endm

.macro pop_scratch
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
.endm

.irp n, 0, 1, 2, 3, 4, 5
irq_\n:
    push rax
    push rcx
    mov ecx, \n
    jmp irq_common
.endr

irq_common:
    push rdx
    mov rax, [rsp + 48]                     # the interrupted rsp
    sub rax, 128
    and rax, -16
    mov rdx, [rsp + 56]
    mov [rax - 8], rdx                      # ss
    mov rdx, [rsp + 48]
    mov [rax - 16], rdx                     # rsp
    mov rdx, [rsp + 40]
    mov [rax - 24], rdx                     # rflags
    mov rdx, [rsp + 32]
    mov [rax - 32], rdx                     # cs
    mov rdx, [rsp + 24]
    mov [rax - 40], rdx                     # rip
    mov rdx, [rsp + 16]
    mov [rax - 48], rdx                     # rax
    mov rdx, [rsp + 8]
    mov [rax - 56], rdx                     # rcx
    mov rdx, [rsp]
    mov [rax - 64], rdx                     # rdx
    lea rsp, [rax - 64]
    push_scratch
    sub rsp, 512
    fxsave64 [rsp]
    mov edi, ecx
    cld
    call {irq}
    fxrstor64 [rsp]
    add rsp, 512
    pop_scratch
    pop rdx
    pop rcx
    pop rax
    iretq

nmi_entry:
    push rax
    push rcx
    push rdx
    push_scratch
    # Five words of the CPU's and nine of ours: aligned.
    sub rsp, 512
    fxsave64 [rsp]
    cld
    call {nmi}
    fxrstor64 [rsp]
    add rsp, 512
    pop_scratch
    pop rdx
    pop rcx
    pop rax
    iretq

# Exceptions end the kernel. The CPU pushes an error code for some of them.
.irp n, 0, 1, 3, 4, 5, 6, 7, 9, 15, 16, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28, 31
exception_\n:
    push 0
    push \n
    jmp exception_common
.endr
.irp n, 8, 10, 11, 12, 13, 14, 17, 21, 29, 30
exception_\n:
    push \n
    jmp exception_common
.endr

exception_common:
    mov rdi, rsp
    and rsp, -16
    cld
    call {exception}
    ud2

.section .rodata.entry, "a"
.balign 8
.globl irq_entries, exception_entries
irq_entries:
.irp n, 0, 1, 2, 3, 4, 5
    .quad irq_\n
.endr
exception_entries:
    .quad exception_0, exception_1, nmi_entry
.irp n, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    .quad exception_\n
.endr
