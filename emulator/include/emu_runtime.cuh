// What compiled kernels and the emulator's runtime know of each other.
#pragma once
#include <stddef.h>

#include "emu_vector.cuh"

// The coordinates of the running thread. The runtime writes them whenever another thread goes on.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

// Default arguments with these two values tell a function where it is called from.
#define EMU_SITE_ARGUMENTS const char *file = __builtin_FILE(), int line = __builtin_LINE()

namespace emu {

// One line per kernel, from a static initialiser that ELBO_KERNEL leaves behind.
struct Kernel {
    const char* name;
    void (*run)(const void* params);
    unsigned params_size, max_threads;
    const char* file;
    Kernel* next;

    Kernel(const char* name, void (*run)(const void*), unsigned params_size, unsigned max_threads, const char* file);
};

// The running block's dynamic shared memory.
extern unsigned char* shared_memory;

// Waits until every live thread of the block is here. Gives back what became of the threads' predicates.
struct Votes {
    int count, all, any;
};
Votes block_barrier(const char* what, bool predicate, const char* file, int line);

// Waits until the lanes of `mask` are here, each with a pointer to its arguments and results. The last lane to arrive
// runs `complete` once for all. Lanes outside the mask have null pointers.
struct WarpCall {
    const char* what;
    u32 mask;
    bool needs_all;     // it is an error when a lane of the mask has already ended
    bool orders_memory; // accesses before it are visible to the other lanes after it
    void (*complete)(void* const lanes[32], u32 mask);
};
void warp_rendezvous(const WarpCall& call, void* slot, const char* file, int line);

u32 live_lanes();
int lane();

// Ends the launch with a report.
[[noreturn]] void kernel_fault(const char* what, const char* file, int line);

// Asynchronous copies to shared memory: queued for the running thread, done when they are waited for. `ahead`: of memory that no
// launch writes which may still run while this one has not waited.
void async_copy(void* shared, const void* global, unsigned bytes, bool valid, bool ahead, const char* file, int line);
void async_commit();
void async_wait(unsigned pending_groups);
void async_wait_all();

// A read of shared memory: a fault unless [p, p + bytes) is memory of this block and p is aligned.
void check_shared_read(const void* p, unsigned bytes, unsigned alignment, const char* what, const char* file, int line);

void thread_fence();

}  // namespace emu
