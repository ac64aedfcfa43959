// Fibers: many call stacks on one OS thread, switched by hand.
//
// A thread of a kernel is a fiber. It runs until it waits (barrier, shuffle, vote, …); then another fiber of its block
// goes on. The switch saves what the calling convention says a call must preserve, and nothing else: about 5 ns on
// x86-64, where swapcontext of the C library makes two system calls each time.
#pragma once
#include <cstddef>

namespace emu {

// Where a suspended flow of control can be resumed: its stack pointer, or what stands for it in the portable version.
using Context = void*;

constexpr size_t MAX_STACKS = 1024;

// One stack, with an inaccessible page below it: running over the end is a fault, not silent damage. There are at most
// MAX_STACKS, and they live as long as the process.
class Stack {
public:
    Stack();
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;

    // A context that, when first resumed, calls `entry` on this stack. `entry` must not return.
    Context start(void (*entry)());

    // Is this address in the inaccessible page?
    bool overflowed_at(const void* address) const;

private:
    char* base_;
    void* portable_ = nullptr;  // the ucontext_t, where there is no switch by hand
};

// Does some stack contain this address?
bool on_a_stack(const void* address);

// Saves the running flow of control in `from` and resumes `to`. Returns when somebody resumes `from`.
void switch_context(Context& from, Context to);

}  // namespace emu
