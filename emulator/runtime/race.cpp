// The race detector's books.
//
// Time is a counter that advances at every event that orders something. Each thread has an epoch: the time of its last
// such event. Each word of memory remembers who wrote it last and two threads that read it since, with their epochs.
// Whether an old access comes before the running thread's is then a comparison:
//
//   same block       its epoch is older than the block's last barrier
//   same warp        its epoch is one that this lane has seen, by __syncwarp
//   same block       its epoch is one that this thread has seen, by an mbarrier
//   another block    a release of that block that covers it was acquired here (struct Release)
#include "race.h"

#include <algorithm>
#include <memory>
#include <unordered_map>
#include <vector>

#include "block.h"
#include "launch.h"
#include "memory.h"

namespace emu::race {

namespace {

// ---- what each word of memory remembers ----

struct Access {
    uint32_t thread = 0, epoch = 0, place = 0;
    uint8_t bytes = 0;  // which of the word's four; 0: no access
    bool atomic = false;
    bool aside = false;  // by a copy that the thread started
};

struct Word {
    uint32_t age = 0;  // what it remembers is of another launch, or another block's shared memory, if this differs
    uint32_t written_by = 0;  // the last launch that wrote it: this it remembers for ever
    Access writes[2];  // of its two halves: neighbouring 16-bit elements belong to different threads
    Access reads[2];
};

constexpr uintptr_t PAGE = 4096;

struct Page {
    Word words[PAGE / 4];
};

bool is_enabled;
uint32_t ages, launch_age, block_age;
std::vector<uint32_t> may_still_run;
std::unordered_map<uintptr_t, std::unique_ptr<Page>> pages;
struct {
    uintptr_t number;
    Page* page;
} recent[256];

Word& word_at(uintptr_t address) {
    uintptr_t number = address / PAGE;
    auto& entry = recent[number % 256];
    if (entry.page == nullptr || entry.number != number) {
        auto& page = pages[number];
        if (page == nullptr) page = std::make_unique<Page>();
        entry = {number, page.get()};
    }
    Word& word = entry.page->words[address % PAGE / 4];
    uint32_t age = in_shared(reinterpret_cast<void*>(address), 1) ? block_age : launch_age;
    if (word.age != age) {
        uint32_t written_by = word.written_by;
        word = Word();
        word.age = age;
        word.written_by = written_by;
    }
    return word;
}

// ---- what threads know ----

// A thread's number counts through the whole grid.
uint32_t block_number(uint32_t thread) { return thread / MAX_THREADS; }
uint32_t this_block() { return (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x; }
int acting = -1;  // who touches memory, if it is not the running thread
uint32_t this_linear() { return acting >= 0 ? static_cast<uint32_t>(acting) : block().current().linear; }
uint32_t this_thread() { return this_block() * MAX_THREADS + this_linear(); }

// What a thread made visible to other blocks by a fence and then an atomic operation.
struct Release {
    uint32_t thread;
    uintptr_t location;
    uint32_t atomic_epoch;           // the atomic operation itself
    uint32_t fenced, barrier;        // own accesses up to this epoch; those of the block older than this barrier
    std::vector<uint32_t> seen;      // of the lanes of its warp, up to these epochs
    std::vector<uint32_t> published; // of each thread of the block: what it had fenced before the barrier

    bool covers(const Access& access) const {
        if (access.thread == thread && access.epoch <= fenced) return true;
        if (access.epoch < barrier) return true;
        uint32_t linear = access.thread % MAX_THREADS, own = thread % MAX_THREADS;
        if (linear / 32 == own / 32 && access.epoch <= seen[linear % 32]) return true;
        return !published.empty() && access.epoch <= published[linear];
    }
};

// A release that some threads of the running block know of: all, or these lanes of one warp.
struct Acquired {
    std::shared_ptr<const Release> release;
    bool all;
    uint32_t warp, lanes;

    bool known_to(unsigned linear) const { return all || (linear / 32 == warp && (lanes >> linear % 32 & 1)); }
};

uint32_t now;                                      // time, from the start of the launch
uint32_t last_barrier;                             // of the running block
uint32_t epoch[MAX_THREADS];                       // of its threads
uint32_t seen[MAX_THREADS][32];                    // lanes of the own warp: visible up to this epoch
uint32_t fenced[MAX_THREADS], fence_barrier[MAX_THREADS];
uint32_t fence_seen[MAX_THREADS][32];
std::vector<uint32_t> published;                   // `fenced` as it was at the last barrier; empty: no fence yet
bool fenced_since_barrier;
std::unordered_multimap<uint32_t, Acquired> acquired;  // by the block that released
std::unordered_map<uintptr_t, std::vector<std::shared_ptr<const Release>>> released;  // by the atomic's address

// What mbarriers tell, once there is one in the block: of thread i, the epochs of all others up to which it has seen them.
// A clock is the same of those that have arrived in this phase, and in all up to the last complete one.
struct Clock {
    std::vector<uint32_t> arrived, complete;
};
std::vector<uint32_t> known;
std::unordered_map<const void*, Clock> clocks;

uint32_t* known_to(unsigned linear) { return known.data() + size_t(linear) * block().thread_count(); }

void join(uint32_t* to, const uint32_t* from) {
    for (unsigned i = 0; i < block().thread_count(); ++i) to[i] = std::max(to[i], from[i]);
}

Clock& clock_of(const void* barrier) {
    size_t count = block().thread_count();
    if (known.empty()) known.assign(count * count, 0);
    Clock& clock = clocks[barrier];
    clock.arrived.resize(count);
    clock.complete.resize(count);
    return clock;
}

bool comes_before(const Access& old, uint32_t thread, uintptr_t address) {
    if (old.thread == thread && !old.aside) return true;
    unsigned linear = thread % MAX_THREADS, other = old.thread % MAX_THREADS;
    if (block_number(old.thread) == block_number(thread)) {
        if (!known.empty() && old.epoch <= known_to(linear)[other]) return true;
        return old.epoch < last_barrier || (linear / 32 == other / 32 && old.epoch <= seen[linear][other % 32]);
    }
    auto [begin, end] = acquired.equal_range(block_number(old.thread));
    return std::any_of(begin, end, [&](const auto& entry) {
        const Acquired& known = entry.second;
        if (!known.known_to(linear)) return false;
        const Release& release = *known.release;
        bool is_the_atomic = old.atomic && release.location == address && release.thread == old.thread;
        return release.covers(old) || (is_the_atomic && old.epoch <= release.atomic_epoch);
    });
}

// ---- places, as 32 bits ----

std::vector<Site> sites;

uintptr_t base() { return reinterpret_cast<uintptr_t>(&is_enabled); }

uint32_t place_number(uintptr_t pc) {
    // Code and data of one library are less than 1 GiB apart.
    if (pc != 0) return static_cast<uint32_t>(pc - base() + (1u << 30)) & 0x7fffffff;
    const Site& site = block().current().site;
    auto found = std::find(sites.begin(), sites.end(), site);
    size_t number = found - sites.begin();
    if (found == sites.end()) sites.push_back(site);
    return 0x80000000u | static_cast<uint32_t>(number);
}

std::string place_text(uint32_t place) {
    if (place & 0x80000000u) return sites[place & 0x7fffffff].text();
    return place_of(base() + place - (1u << 30) - 1);
}

// ---- reports ----

std::string thread_text(uint32_t thread) {
    auto coordinates = [](uint32_t i, uint32_t x, uint32_t y) { return text(uint3{i % x, i / x % y, i / (x * y)}); };
    return "thread " + coordinates(thread % MAX_THREADS, blockDim.x, blockDim.y) + " of block " +
           coordinates(block_number(thread), gridDim.x, gridDim.y);
}

[[noreturn]] void report(const Access& old, bool old_write, uintptr_t address, bool write, uint32_t place) {
    auto p = reinterpret_cast<const unsigned char*>(address);
    std::string memory = in_shared(p, 1) ? "shared memory, byte " + std::to_string(p - shared_memory) : "global memory";
    auto kind = [](bool is_write) { return std::string(is_write ? "write" : "read"); };
    fault(Outcome::FAILED, "race in " + memory + ": " + kind(old_write) + " by " + thread_text(old.thread) + " at " +
                               place_text(old.place) + ", then " + kind(write) + " at " + place_text(place) +
                               " with nothing between that orders them");
}

// ---- the check ----

bool is_copy;  // what touches memory now is a copy

void touch(uintptr_t address, uint8_t bytes, bool write, bool is_atomic, uint32_t place) {
    Word& word = word_at(address);
    uint32_t thread = this_thread();
    auto conflicts = [&](const Access& old) {
        if ((old.bytes & bytes) == 0 || (old.atomic && is_atomic)) return false;
        return !comes_before(old, thread, address);
    };
    for (const Access& old : word.writes) {
        if (conflicts(old)) report(old, true, address, write, place);
    }
    Access now_here{thread, epoch[thread % MAX_THREADS], place, bytes, is_atomic, is_copy};
    if (write) {
        word.written_by = launch_age;
        for (Access& old : word.reads) {
            if (conflicts(old)) report(old, false, address, write, place);
            if ((old.bytes & ~bytes) == 0) old = Access();
        }
        for (int half = 0; half < 2; ++half) {
            uint8_t part = bytes & (3 << 2 * half);
            if (part == 0) continue;
            word.writes[half] = now_here;
            word.writes[half].bytes = part;
        }
        return;
    }
    // Of many readers two are enough to find a later write by a third thread, or by one of the two; they should be of
    // different warps, so that a barrier of one warp does not hide the other.
    Access &a = word.reads[0], &b = word.reads[1];
    bool a_is_past = a.bytes == 0 || a.thread == thread || comes_before(a, thread, address);
    bool b_is_past = b.bytes == 0 || b.thread == thread || comes_before(b, thread, address);
    if (a_is_past) {
        a = now_here;
    } else if (b_is_past || (a.thread / 32 == b.thread / 32 && a.thread / 32 != thread / 32)) {
        b = now_here;
    }
}

void each_word(const void* memory, size_t bytes, bool write, bool is_atomic, uintptr_t pc) {
    if (!is_enabled || !block().is_running() || on_a_stack(memory)) return;
    auto address = reinterpret_cast<uintptr_t>(memory), end = address + bytes;
    uint32_t place = place_number(pc);
    while (address < end) {
        uintptr_t word = address & ~uintptr_t(3), next = std::min(word + 4, end);
        uint8_t mask = static_cast<uint8_t>((1u << (next - word)) - 1) & static_cast<uint8_t>(0xf << (address - word));
        touch(word, mask, write, is_atomic, place);
        address = next;
    }
}

}  // namespace

void enable() { is_enabled = true; }
bool enabled() { return is_enabled; }

uint32_t begin_launch(const std::vector<uint32_t>& unfinished) {
    launch_age = ++ages;
    now = 0;
    released.clear();
    may_still_run = unfinished;
    return launch_age;
}

void begin_block() {
    if (!is_enabled) return;
    block_age = ++ages;
    last_barrier = ++now;
    std::fill(std::begin(epoch), std::end(epoch), now);
    for (unsigned i = 0; i < block().thread_count(); ++i) {
        std::fill(std::begin(seen[i]), std::end(seen[i]), 0);
        std::fill(std::begin(fence_seen[i]), std::end(fence_seen[i]), 0);
        fenced[i] = fence_barrier[i] = 0;
    }
    published.clear();
    fenced_since_barrier = false;
    acquired.clear();
    known.clear();
    clocks.clear();
    acting = -1;
    is_copy = false;
}

void barrier() {
    if (!is_enabled) return;
    last_barrier = ++now;
    std::fill(std::begin(epoch), std::end(epoch), now);
    if (fenced_since_barrier) published.assign(std::begin(fenced), std::end(fenced));
    fenced_since_barrier = false;
    for (auto& entry : acquired) entry.second.all = true;
}

void warp_barrier(unsigned warp, uint32_t lanes) {
    if (!is_enabled) return;
    uint32_t joined[32] = {};
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((lanes >> lane & 1) == 0) continue;
        unsigned thread = warp * 32 + lane;
        for (unsigned other = 0; other < 32; ++other) joined[other] = std::max(joined[other], seen[thread][other]);
        joined[lane] = std::max(joined[lane], epoch[thread]);
    }
    std::vector<uint32_t> joined_known;
    for (unsigned lane = 0; lane < 32 && !known.empty(); ++lane) {
        joined_known.resize(block().thread_count());
        if (lanes >> lane & 1) join(joined_known.data(), known_to(warp * 32 + lane));
    }
    ++now;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if ((lanes >> lane & 1) == 0) continue;
        if (!known.empty()) std::copy(joined_known.begin(), joined_known.end(), known_to(warp * 32 + lane));
        std::copy(std::begin(joined), std::end(joined), seen[warp * 32 + lane]);
        epoch[warp * 32 + lane] = now;
    }
    for (auto& entry : acquired) {
        Acquired& known = entry.second;
        if (known.warp == warp && (known.lanes & lanes)) known.lanes |= lanes;
    }
}

void fence() {
    if (!is_enabled) return;
    unsigned linear = block().current().linear;
    fenced[linear] = epoch[linear];
    fence_barrier[linear] = last_barrier;
    std::copy(std::begin(seen[linear]), std::end(seen[linear]), fence_seen[linear]);
    fenced_since_barrier = true;
    epoch[linear] = ++now;
}

// Threads of a launch that was set up ahead see what the launches before it wrote only after they have waited for them.
void must_have_begun(const void* address, uintptr_t pc) {
    auto p = static_cast<const unsigned char*>(address);
    if (!block().is_running() || !block().current().ahead || p < memory_begin() || p >= memory_end()) return;
    block().current().ahead = false;
    fault(Outcome::FAILED, "global memory is touched before begin_launch() has waited for the launches before, at " +
                               (pc != 0 ? place_of(pc) : block().current().site.text()));
}

// What launches have written that were over before those began which this one comes after is there already: these have waited.
void must_be_there(const void* address, size_t bytes) {
    if (!is_enabled || !block().is_running() || !block().current().ahead) return;
    auto at = reinterpret_cast<uintptr_t>(address);
    for (uintptr_t word = at; word < at + bytes; word += 4) {
        uint32_t writer = word_at(word).written_by;
        if (std::find(may_still_run.begin(), may_still_run.end(), writer) == may_still_run.end()) continue;
        block().current().ahead = false;
        fault(Outcome::FAILED, "memory that a launch may still write is copied before begin_launch(), at " +
                                   block().current().site.text());
    }
}

void mbarrier_arrives(const void* barrier) {
    if (!is_enabled) return;
    Clock& clock = clock_of(barrier);
    unsigned linear = block().current().linear;
    join(clock.arrived.data(), known_to(linear));
    for (unsigned lane = 0; lane < 32; ++lane) {
        unsigned other = (linear & ~31u) + lane;
        if (other < clock.arrived.size()) clock.arrived[other] = std::max(clock.arrived[other], seen[linear][lane]);
    }
    clock.arrived[linear] = std::max(clock.arrived[linear], epoch[linear]);
    epoch[linear] = ++now;
}

void mbarrier_completes(const void* barrier) {
    if (!is_enabled) return;
    Clock& clock = clock_of(barrier);
    join(clock.complete.data(), clock.arrived.data());
}

void mbarrier_passed(const void* barrier) {
    if (!is_enabled) return;
    Clock& clock = clock_of(barrier);
    join(known_to(block().current().linear), clock.complete.data());
}

uint32_t write_aside(const void* address, size_t bytes) {
    if (!is_enabled) return 0;
    unsigned linear = block().current().linear;
    uint32_t stamp = epoch[linear] = ++now;
    is_copy = true;
    each_word(address, bytes, true, false, 0);
    is_copy = false;
    epoch[linear] = ++now;
    return stamp;
}

void mbarrier_copied(const void* barrier, unsigned linear, uint32_t stamp) {
    if (!is_enabled) return;
    Clock& clock = clock_of(barrier);
    clock.arrived[linear] = std::max(clock.arrived[linear], stamp);
}

Aside::Aside(unsigned linear) {
    if (!is_enabled) return;
    acting = static_cast<int>(linear);
    epoch[linear] = ++now;
}

Aside::~Aside() {
    if (!is_enabled) return;
    unsigned linear = static_cast<unsigned>(acting);
    for (unsigned lane = 0; lane < 32; ++lane) seen[linear + lane][0] = std::max(seen[linear + lane][0], epoch[linear]);
    epoch[linear] = ++now;
    acting = -1;
}

void access(const void* address, size_t bytes, bool write, uintptr_t pc) {
    must_have_begun(address, pc);
    each_word(address, bytes, write, false, pc);
}

// Acquires what earlier atomic operations on this address released, and releases what this thread has fenced or
// acquired.
void atomic(const void* address, size_t bytes, uintptr_t pc) {
    if (!is_enabled) return;
    must_have_begun(address, pc);
    each_word(address, bytes, true, true, pc);
    unsigned linear = block().current().linear;
    auto location = reinterpret_cast<uintptr_t>(address);
    auto& here = released[location];
    for (auto& release : here) {
        if (block_number(release->thread) == this_block()) continue;
        acquired.emplace(block_number(release->thread), Acquired{release, false, linear / 32, 1u << linear % 32});
    }
    for (auto& [of, known] : acquired) {
        bool already = std::find(here.begin(), here.end(), known.release) != here.end();
        if (known.known_to(linear) && !already) here.push_back(known.release);
    }
    auto release = std::make_shared<Release>();
    release->thread = this_thread();
    release->location = location;
    release->atomic_epoch = epoch[linear];
    release->fenced = fenced[linear];
    release->barrier = fence_barrier[linear];
    release->seen.assign(std::begin(fence_seen[linear]), std::end(fence_seen[linear]));
    release->published = published;
    here.push_back(std::move(release));
}

}  // namespace emu::race
