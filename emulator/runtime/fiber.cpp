// Stacks and the switch between them: x86-64 and aarch64 by hand, anything else by the C library's ucontext.
#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

// EMU_UCONTEXT forces the portable version, to test it.
#if defined(EMU_UCONTEXT) || (!defined(__x86_64__) && !defined(__aarch64__))
#define EMU_PORTABLE
#include <ucontext.h>
#endif

namespace emu {

namespace {

// Kernels keep tiles of accumulators on the stack, and sanitised code needs more of it than plain code.
constexpr size_t STACK = 256 << 10;

size_t page() {
    static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

// All stacks lie in one range of addresses, made accessible one by one.
char* reserved;
size_t used;

}  // namespace

Stack::Stack() {
    if (reserved == nullptr) {
        size_t size = MAX_STACKS * (page() + STACK);
        void* memory = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        reserved = static_cast<char*>(memory);
    }
    if (used == MAX_STACKS) throw std::bad_alloc();
    base_ = reserved + used * (page() + STACK);
    if (mprotect(base_ + page(), STACK, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    ++used;
}

bool Stack::overflowed_at(const void* address) const {
    auto p = static_cast<const char*>(address);
    return p >= base_ && p < base_ + page();
}

bool on_a_stack(const void* address) {
    auto p = static_cast<const char*>(address);
    return p >= reserved && p < reserved + used * (page() + STACK);
}

#if defined(__x86_64__) && !defined(EMU_PORTABLE)

// System V: rbx, rbp, r12–r15 survive a call; everything else is the caller's to save.
extern "C" __attribute__((visibility("hidden"))) void elbo_emu_switch(void** from, void* to);
asm(R"(
    .text
    .p2align 4
    .hidden elbo_emu_switch
    .globl elbo_emu_switch
    .type elbo_emu_switch, @function
elbo_emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size elbo_emu_switch, .-elbo_emu_switch
)");

Context Stack::start(void (*entry)()) {
    // Six registers, the address that `ret` goes to, and one word so that `entry` finds the alignment it would find
    // after a call: the stack pointer 8 below a multiple of 16.
    auto top = reinterpret_cast<uintptr_t*>(base_ + page() + STACK);
    uintptr_t* sp = top - 8;
    for (int i = 0; i < 6; ++i) sp[i] = 0;
    sp[6] = reinterpret_cast<uintptr_t>(entry);
    sp[7] = 0;
    return sp;
}

void switch_context(Context& from, Context to) { elbo_emu_switch(&from, to); }

#elif defined(__aarch64__) && !defined(EMU_PORTABLE)

// AAPCS64: x19–x29, the link register and the low halves of v8–v15 survive a call.
extern "C" __attribute__((visibility("hidden"))) void elbo_emu_switch(void** from, void* to);
asm(R"(
    .text
    .p2align 4
    .hidden elbo_emu_switch
    .globl elbo_emu_switch
    .type elbo_emu_switch, %function
elbo_emu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x2, sp
    str x2, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .size elbo_emu_switch, .-elbo_emu_switch
)");

Context Stack::start(void (*entry)()) {
    auto top = reinterpret_cast<uintptr_t*>(base_ + page() + STACK);
    uintptr_t* sp = top - 20;
    for (int i = 0; i < 20; ++i) sp[i] = 0;
    sp[11] = reinterpret_cast<uintptr_t>(entry);  // x30, where `ret` goes
    return sp;
}

void switch_context(Context& from, Context to) { elbo_emu_switch(&from, to); }

#else

Context Stack::start(void (*entry)()) {
    if (portable_ == nullptr) portable_ = new ucontext_t;
    auto context = static_cast<ucontext_t*>(portable_);
    getcontext(context);
    context->uc_stack.ss_sp = base_ + page();
    context->uc_stack.ss_size = STACK;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    return context;
}

// The saved state lies on the stack of the flow of control that it belongs to.
void switch_context(Context& from, Context to) {
    ucontext_t here;
    from = &here;
    swapcontext(&here, static_cast<ucontext_t*>(to));
}

#endif

}  // namespace emu
