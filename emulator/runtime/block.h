// The threads of one block: who runs, who waits for what.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "emu_runtime.cuh"
#include "fiber.h"

namespace emu {

// Where a thread stands: what it last called, and the line.
struct Site {
    const char* what = nullptr;
    const char* file = nullptr;
    int line = 0;
    bool operator==(const Site& other) const;
    std::string text() const;
};

struct AsyncCopy {
    unsigned char* to;
    const void* from;
    unsigned bytes;
    bool valid;
    Site site;
};

enum class State : uint8_t { READY, AT_BARRIER, IN_WARP, IN_WARPGROUP, AT_MBARRIER, ENDED };

struct Thread {
    Context context = nullptr;
    uint3 index;
    unsigned linear, lane;
    State state;
    bool predicate;      // AT_BARRIER
    const WarpCall* call;  // IN_WARP
    void* slot;          // IN_WARP
    const u64* barrier;  // AT_MBARRIER
    Site site;
    std::vector<AsyncCopy> copies;      // not yet done, oldest first
    std::vector<unsigned> groups;       // sizes of the committed groups, oldest first
    unsigned uncommitted = 0;           // copies behind the last committed group
    bool ahead = false;                 // set up ahead of what it comes after, and has not waited for it
};

// Sets of lanes.
struct Warp {
    uint32_t exists, ready, waiting, ended;  // `waiting`: IN_WARP
};

constexpr unsigned MAX_THREADS = MAX_STACKS;

// Four warps in a call of all their 128 threads.
struct Warpgroup {
    unsigned here = 0;
    Site site;
    void* slots[128];
};

// The block that is running, if any. There is one at a time in the process.
class Block {
public:
    // Runs `kernel` for one block; false: it failed, and failure() says how.
    // `ahead`: it begins while launches that it comes after may still run.
    bool run(const Kernel& kernel, const void* params, dim3 shape, bool ahead);

    Thread& current() { return *current_; }
    unsigned thread_count() const { return count_; }
    uint32_t lanes(unsigned warp) const { return warps_[warp].exists & ~warps_[warp].ended; }
    Thread& lane_of(const Thread& of, unsigned lane) { return threads_[(of.linear & ~31u) + lane]; }

    Votes barrier(const Site& site, bool predicate);
    void rendezvous(const WarpCall& call, void* slot, const Site& site);
    // All threads of the running one's warpgroup. The last to arrive runs `complete` with the slots of all and the number of
    // their first warp. It orders no memory.
    void warpgroup_rendezvous(const Site& site, void* slot, void (*complete)(void* const slots[128], unsigned warp));
    // Waits until somebody wakes those that wait there (mbarrier.cpp).
    void wait_at(const u64* barrier);
    void wake_waiting(const u64* barrier);

    // Leaves the running thread for good and ends the launch.
    [[noreturn]] void fail(const std::string& what);
    // The same from a signal handler: nothing is allocated; the text is made afterwards by `explain`.
    [[noreturn]] void fail_from_signal(std::string (*explain)());

    const std::string& failure() const { return failure_; }
    bool is_running() const { return current_ != nullptr; }
    const Stack& current_stack() const { return *stacks_[current_->linear]; }

private:
    static void thread_main();
    void suspend(State state);
    void end_thread();
    [[noreturn]] void leave();
    Thread* pick();
    void make_ready(Thread& thread);
    void release_barrier();
    void try_to_complete(Thread& waiting);
    void prepare(dim3 shape, bool ahead);
    std::string explain_deadlock() const;
    std::string describe(const Thread& thread) const;

    const Kernel* kernel_ = nullptr;
    const void* params_ = nullptr;
    std::vector<Thread> threads_;
    std::vector<Stack*> stacks_;  // kept for the life of the process
    Warp warps_[MAX_THREADS / 32];
    Warpgroup warpgroups_[MAX_THREADS / 128];
    uint32_t ready_warps_ = 0;
    unsigned count_ = 0, live_ = 0, at_barrier_ = 0;
    Site barrier_site_;
    const Thread* barrier_first_ = nullptr;
    Votes votes_{}, released_{};  // of the barrier that fills, of the one last passed
    Thread* current_ = nullptr;
    Context main_ = nullptr;
    std::string failure_;
    std::string (*explain_)() = nullptr;
};

Block& block();

// "block (1,0,0) thread (33,0,0)" of the running thread.
std::string where();
std::string text(const uint3& index);

}  // namespace emu
