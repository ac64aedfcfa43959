// mbarriers: a barrier's state is kept here, beside the block's memory; in its eight bytes lies a mark, so that a barrier that a
// kernel has overwritten is noticed.
#include <cstring>
#include <map>

#include "hopper.h"
#include "launch.h"
#include "race.h"

namespace emu {

namespace hopper {

namespace {

struct Barrier {
    u32 arrivals;                 // that complete a phase
    u32 missing;                  // of them, in the present phase
    uint64_t phase = 0;
    long long bytes = 0;          // announced, and not yet come
    bool seen_by_copies = false;
};

std::map<const u64*, Barrier> barriers;  // of the running block

u64 mark_of(const u64* barrier) { return 0x9e3779b97f4a7c15ull * (1 + reinterpret_cast<uintptr_t>(barrier)); }

std::string name_of(const u64* barrier) { return "the mbarrier at " + byte_of(barrier); }

Barrier& find(const u64* barrier, const Site& site) {
    block().current().site = site;
    auto found = barriers.find(barrier);
    if (found == barriers.end()) fault(Outcome::FAILED, site.text() + ": there is no mbarrier at " + byte_of(barrier));
    race::access(barrier, sizeof *barrier, false, 0);
    if (*barrier != mark_of(barrier)) fault(Outcome::FAILED, site.text() + ": " + name_of(barrier) + " was overwritten");
    return found->second;
}

// Goes on to the next phase if this one is complete, and wakes who waits for that.
void settle(const u64* barrier, Barrier& state) {
    if (state.missing > 0 || state.bytes != 0) return;
    Site site;
    if (unsigned long long late = bytes_on_their_way(barrier, state.phase, site)) {
        fault(Outcome::FAILED, site.text() + ": phase " + std::to_string(state.phase) + " of " + name_of(barrier) +
                                   " is complete, but " + std::to_string(late) + " bytes of its copies are "
                                   "still on their way: fewer bytes were announced than the copies bring");
    }
    ++state.phase;
    state.missing = state.arrivals;
    race::mbarrier_completes(barrier);
    block().wake_waiting(barrier);
}

}  // namespace

std::string byte_of(const void* p) {
    return "byte " + std::to_string(static_cast<const unsigned char*>(p) - shared_memory);
}

std::string missing(const Thread& waiting) {
    const Barrier& state = barriers.at(waiting.barrier);
    std::string out = "phase " + std::to_string(state.phase) + " of " + name_of(waiting.barrier) + ", which lacks " +
                      std::to_string(state.missing) + " of " + std::to_string(state.arrivals) + " arrivals and ";
    if (state.bytes >= 0) return out + std::to_string(state.bytes) + " announced bytes";
    return out + "to which " + std::to_string(-state.bytes) + " bytes more have come than were announced";
}

uint64_t phase_for_copy(u64* barrier, const Site& site) {
    Barrier& state = find(barrier, site);
    if (!state.seen_by_copies) {
        fault(Outcome::FAILED, site.text() + ": " + name_of(barrier) + " was made with no fence_mbarrier_init() since");
    }
    return state.phase;
}

void bytes_came(const u64* barrier, unsigned bytes, unsigned writer, uint32_t stamp) {
    Barrier& state = barriers.at(barrier);
    state.bytes -= bytes;
    race::mbarrier_copied(barrier, writer, stamp);
    settle(barrier, state);
}

void begin_block() {
    barriers.clear();
    begin_copies();
    begin_products();
}

}  // namespace hopper

using namespace hopper;

void mbarrier_init(u64* barrier, u32 arrivals, const char* file, int line) {
    Site site{"mbarrier_init", file, line};
    block().current().site = site;
    if (!in_shared(barrier, sizeof *barrier)) {
        fault(Outcome::ILLEGAL_ADDRESS, site.text() + ": an mbarrier outside of shared memory");
    }
    if (shared_address(barrier) % 8 != 0) {
        fault(Outcome::MISALIGNED, site.text() + ": " + byte_of(barrier) + " is no multiple of 8");
    }
    if (arrivals == 0 || arrivals >= 1u << 20) {
        fault(Outcome::FAILED, site.text() + ": " + std::to_string(arrivals) + " arrivals; 1 to 2^20 - 1 are possible");
    }
    race::access(barrier, sizeof *barrier, true, 0);
    *barrier = mark_of(barrier);
    barriers[barrier] = Barrier{.arrivals = arrivals, .missing = arrivals};
}

void mbarriers_become_visible() {
    for (auto& entry : barriers) entry.second.seen_by_copies = true;
}

void mbarrier_arrive(u64* barrier, long long bytes, const char* what, const char* file, int line) {
    Site site{what, file, line};
    Barrier& state = find(barrier, site);
    if (state.missing == 0) {
        fault(Outcome::FAILED, site.text() + ": one arrival more than the " + std::to_string(state.arrivals) + " of phase " +
                                   std::to_string(state.phase) + " of " + name_of(barrier));
    }
    state.bytes += bytes;
    if (state.bytes >= 1 << 20) {
        fault(Outcome::FAILED, site.text() + ": " + std::to_string(state.bytes) + " bytes announced; 2^20 - 1 are possible");
    }
    --state.missing;
    race::mbarrier_arrives(barrier);
    settle(barrier, state);
}

void mbarrier_wait(u64* barrier, u32 parity, const char* file, int line) {
    Site site{"mbarrier_wait", file, line};
    if (parity > 1) fault(Outcome::FAILED, site.text() + ": parity " + std::to_string(parity) + " is neither 0 nor 1");
    Barrier& state = find(barrier, site);
    while (state.phase % 2 == parity) block().wait_at(barrier);
    race::mbarrier_passed(barrier);
}

}  // namespace emu
