// Where the CPU comes in, and goes out, for interrupts and exceptions.
//
// All is on the stack that was interrupted: this ABI has no red zone below it. What an interrupt leaves there:
//
//     +720   what was interrupted
//     +208   q0 .. q31
//     +192   fpcr, -
//     +176   pmr, fpsr
//     +160   elr, spsr
//       +0   x0 .. x18, x30           what a call may change
//
// The priority mask is saved with the rest, for it says whether interrupts were on.

.macro fatal n
    .balign 128
    mov x0, #\n
    b exception_common
.endm

.section .text.vectors, "ax"
.balign 2048
.globl vectors
vectors:
    fatal 0                                     // current EL on SP_EL0: synchronous, IRQ, FIQ, SError
    fatal 1
    fatal 2
    fatal 3
    fatal 4                                     // current EL on its own stack
    .balign 128
    b irq_common
    fatal 6
    fatal 7
    fatal 8                                     // a lower EL: there is none
    fatal 9
    fatal 10
    fatal 11
    fatal 12
    fatal 13
    fatal 14
    fatal 15
    .balign 128

irq_common:
    sub sp, sp, #720
    stp x0, x1, [sp, #0]
    stp x2, x3, [sp, #16]
    stp x4, x5, [sp, #32]
    stp x6, x7, [sp, #48]
    stp x8, x9, [sp, #64]
    stp x10, x11, [sp, #80]
    stp x12, x13, [sp, #96]
    stp x14, x15, [sp, #112]
    stp x16, x17, [sp, #128]
    stp x18, x30, [sp, #144]
    mrs x0, elr_el1
    mrs x1, spsr_el1
    stp x0, x1, [sp, #160]
    mrs x0, icc_pmr_el1
    mrs x1, fpsr
    stp x0, x1, [sp, #176]
    mrs x0, fpcr
    str x0, [sp, #192]
    stp q0, q1, [sp, #208]
    stp q2, q3, [sp, #240]
    stp q4, q5, [sp, #272]
    stp q6, q7, [sp, #304]
    stp q8, q9, [sp, #336]
    stp q10, q11, [sp, #368]
    stp q12, q13, [sp, #400]
    stp q14, q15, [sp, #432]
    stp q16, q17, [sp, #464]
    stp q18, q19, [sp, #496]
    stp q20, q21, [sp, #528]
    stp q22, q23, [sp, #560]
    stp q24, q25, [sp, #592]
    stp q26, q27, [sp, #624]
    stp q28, q29, [sp, #656]
    stp q30, q31, [sp, #688]
    bl {irq}
    ldp q0, q1, [sp, #208]
    ldp q2, q3, [sp, #240]
    ldp q4, q5, [sp, #272]
    ldp q6, q7, [sp, #304]
    ldp q8, q9, [sp, #336]
    ldp q10, q11, [sp, #368]
    ldp q12, q13, [sp, #400]
    ldp q14, q15, [sp, #432]
    ldp q16, q17, [sp, #464]
    ldp q18, q19, [sp, #496]
    ldp q20, q21, [sp, #528]
    ldp q22, q23, [sp, #560]
    ldp q24, q25, [sp, #592]
    ldp q26, q27, [sp, #624]
    ldp q28, q29, [sp, #656]
    ldp q30, q31, [sp, #688]
    ldr x0, [sp, #192]
    msr fpcr, x0
    ldp x0, x1, [sp, #176]
    msr icc_pmr_el1, x0
    msr fpsr, x1
    ldp x0, x1, [sp, #160]
    msr elr_el1, x0
    msr spsr_el1, x1
    ldp x0, x1, [sp, #0]
    ldp x2, x3, [sp, #16]
    ldp x4, x5, [sp, #32]
    ldp x6, x7, [sp, #48]
    ldp x8, x9, [sp, #64]
    ldp x10, x11, [sp, #80]
    ldp x12, x13, [sp, #96]
    ldp x14, x15, [sp, #112]
    ldp x16, x17, [sp, #128]
    ldp x18, x30, [sp, #144]
    add sp, sp, #720
    eret

// Exceptions end the kernel.
exception_common:
    mov x1, sp
    bl {exception}
    brk #0
