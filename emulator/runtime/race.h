// The race detector: are two accesses to the same memory, one of them a write, ordered by something that CUDA promises?
//
// Kernels compiled with -fsanitize=thread call a function for each access (race_hooks.cpp). Otherwise all of this does
// nothing. What orders: __syncthreads within a block, __syncwarp among its lanes, an arrival at an mbarrier before a wait for
// that phase, and between blocks an atomic operation that comes after a __threadfence and is seen by a later atomic operation
// on the same address. Shuffles,
// votes and the tensor cores order no memory, and neither does the habit of lanes to run in step.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace emu::race {

// Called by the compiled kernels' initialisers.
void enable();
bool enabled();

// A launch begins, which may do so while those with these numbers still run. The result is its own number.
uint32_t begin_launch(const std::vector<uint32_t>& unfinished);
void begin_block();

// All threads of the block, some lanes of a warp, or the running thread alone pass a point that orders memory.
void barrier();
void warp_barrier(unsigned warp, uint32_t lanes);
void fence();

// The running thread arrives at an mbarrier; a phase of it is complete; the running thread has waited for that.
void mbarrier_arrives(const void* barrier);
void mbarrier_completes(const void* barrier);
void mbarrier_passed(const void* barrier);

// The running thread starts a copy to [address, address + bytes): a write that nobody sees, neither the thread itself, but who
// waits for the mbarrier that `mbarrier_copied` tells of it. The result is the write's stamp.
uint32_t write_aside(const void* address, size_t bytes);
void mbarrier_copied(const void* barrier, unsigned linear, uint32_t stamp);

// While it lives, `access` is that of a product which this thread, the first lane of a warp, and its 31 neighbours have waited
// for.
struct Aside {
    explicit Aside(unsigned linear);
    ~Aside();
    Aside(const Aside&) = delete;
    Aside& operator=(const Aside&) = delete;
};

// The running thread touches memory; `pc` is the place in the kernel, 0 for "where the thread stands" (Thread::site).
void access(const void* address, size_t bytes, bool write, uintptr_t pc);
void atomic(const void* address, size_t bytes, uintptr_t pc);
// Fails if it is global memory and the running thread has not waited for the launches that its own comes after.
void must_have_begun(const void* address, uintptr_t pc);
// Fails if it has not waited and one of those that may still run has written there.
void must_be_there(const void* address, size_t bytes);

}  // namespace emu::race
