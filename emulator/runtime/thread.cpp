// What a running thread calls: barriers, votes, atomics, asynchronous copies.
#include <cstdio>

#include "block.h"
#include "emu.cuh"
#include "launch.h"
#include "race.h"

namespace emu {

Votes block_barrier(const char* what, bool predicate, const char* file, int line) {
    return block().barrier(Site{what, file, line}, predicate);
}

void warp_rendezvous(const WarpCall& call, void* slot, const char* file, int line) {
    block().rendezvous(call, slot, Site{call.what, file, line});
}

int lane() { return static_cast<int>(block().current().lane); }
u32 live_lanes() { return block().lanes(block().current().linear / 32); }

void kernel_fault(const char* what, const char* file, int line) {
    fault(Outcome::FAILED, Site{what, file, line}.text());
}

void thread_fence() { race::fence(); }

void begin_launch() { block().current().ahead = false; }

// ---- votes ----

void Ballot::complete(void* const lanes[32], u32 mask) {
    u32 votes = 0;
    for (int i = 0; i < 32; ++i) {
        if (lanes[i] != nullptr && static_cast<Ballot*>(lanes[i])->predicate) votes |= 1u << i;
    }
    for (int i = 0; i < 32; ++i) {
        if (lanes[i] == nullptr) continue;
        static_cast<Ballot*>(lanes[i])->votes = votes;
        static_cast<Ballot*>(lanes[i])->voters = mask;
    }
}

u32 ballot(const char* what, u32 mask, bool predicate, u32* voters, const char* file, int line) {
    Ballot slot{predicate, 0, 0};
    warp_rendezvous({what, mask, false, false, Ballot::complete}, &slot, file, line);
    *voters = slot.voters;
    return slot.votes;
}

// ---- asynchronous copies ----

namespace {

std::string hex(const void* p) {
    char text[32];
    snprintf(text, sizeof text, "%p", p);
    return text;
}

bool aligned(const void* p, unsigned to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

// Does the `count` oldest copies.
void do_copies(Thread& thread, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
        const AsyncCopy& copy = thread.copies[i];
        if (copy.valid) {
            memcpy(copy.to, copy.from, copy.bytes);
            race::access(copy.from, copy.bytes, false, 0);
        } else {
            memset(copy.to, 0, copy.bytes);
        }
        race::access(copy.to, copy.bytes, true, 0);
    }
    thread.copies.erase(thread.copies.begin(), thread.copies.begin() + count);
}

}  // namespace

void async_copy(void* shared, const void* global, unsigned bytes, bool valid, bool ahead, const char* file, int line) {
    Thread& thread = block().current();
    thread.site = Site{bytes == 16 ? "cp_async16" : "cp_async4", file, line};
    if (!in_shared(shared, bytes)) {
        fault(Outcome::ILLEGAL_ADDRESS, thread.site.text() + ": the destination is not in shared memory");
    }
    if (!aligned(shared, bytes) || (valid && !aligned(global, bytes))) {
        fault(Outcome::MISALIGNED, thread.site.text() + ": from " + hex(global) + " to " + hex(shared));
    }
    if (valid && ahead) race::must_be_there(global, bytes);
    else if (valid) race::must_have_begun(global, 0);
    race::access(shared, bytes, true, 0);
    memset(shared, 0xff, bytes);
    thread.copies.push_back(AsyncCopy{static_cast<unsigned char*>(shared), global, bytes, valid, thread.site});
    ++thread.uncommitted;
}

void async_commit() {
    Thread& thread = block().current();
    thread.groups.push_back(thread.uncommitted);
    thread.uncommitted = 0;
}

void async_wait(unsigned pending_groups) {
    Thread& thread = block().current();
    while (thread.groups.size() > pending_groups) {
        unsigned count = thread.groups.front();
        thread.groups.erase(thread.groups.begin());
        do_copies(thread, count);
    }
}

void async_wait_all() {
    async_commit();
    async_wait(0);
}

void check_shared_read(const void* p, unsigned bytes, unsigned alignment, const char* what, const char* file,
                       int line) {
    Site site{what, file, line};
    if (!in_shared(p, bytes)) fault(Outcome::ILLEGAL_ADDRESS, site.text() + ": " + hex(p) + " is not in shared memory");
    if (!aligned(p, alignment)) {
        fault(Outcome::MISALIGNED, site.text() + ": " + hex(p) + " is no multiple of " + std::to_string(alignment));
    }
    block().current().site = site;
    race::access(p, bytes, false, 0);
}

}  // namespace emu

// ---- atomics: one OS thread runs everything, so plain operations are atomic ----

namespace {

template <class T, class F>
inline __attribute__((always_inline)) T atomically(T* p, F f) {
    auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
    if (reinterpret_cast<uintptr_t>(p) % sizeof(T) != 0) {
        emu::fault(emu::Outcome::MISALIGNED, "atomic operation at " + emu::place_of(pc));
    }
    emu::race::atomic(p, sizeof(T), pc);
    T old = *p;
    *p = f(old);
    return old;
}

// Sums wrap, also those of int.
template <class T>
T sum(T a, T b) {
    return static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b));
}

}  // namespace

#define EMU_UPDATE(T, name, result) \
    T name(T* p, T value) {         \
        return atomically(p, [=]([[maybe_unused]] T old) { return result; }); \
    }
#define EMU_ATOMIC(T)                                      \
    EMU_UPDATE(T, atomicAdd, sum(old, value))              \
    EMU_UPDATE(T, atomicSub, sum(old, sum(T(~value), T(1)))) \
    EMU_UPDATE(T, atomicExch, value)                       \
    EMU_UPDATE(T, atomicMin, old < value ? old : value)    \
    EMU_UPDATE(T, atomicMax, old > value ? old : value)    \
    EMU_UPDATE(T, atomicAnd, old & value)                  \
    EMU_UPDATE(T, atomicOr, old | value)                   \
    EMU_UPDATE(T, atomicXor, old ^ value)                  \
    T atomicCAS(T* p, T expected, T value) {               \
        return atomically(p, [=](T old) { return old == expected ? value : old; }); \
    }
EMU_ATOMIC(int)
EMU_ATOMIC(u32)
EMU_ATOMIC(u64)

u32 atomicInc(u32* p, u32 limit) {
    return atomically(p, [=](u32 old) { return old >= limit ? 0 : old + 1; });
}
u32 atomicDec(u32* p, u32 limit) {
    return atomically(p, [=](u32 old) { return old == 0 || old > limit ? limit : old - 1; });
}
