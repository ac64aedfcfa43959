// Runs one block: each thread is a fiber that runs until it waits; whoever is ready goes on, as the schedule chooses.
//
// Nothing ever blocks the OS thread. When no thread is ready, copies of tiles that are on their way come (hopper.h). When there is
// none either and some threads have not ended, that is a deadlock, and what each waits for is the report.
#include "block.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "hopper.h"
#include "race.h"
#include "schedule.h"
#include "watchdog.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emu {

Block& block() {
    static Block* instance = new Block;
    return *instance;
}

bool Site::operator==(const Site& other) const {
    auto same = [](const char* a, const char* b) { return a == b || (a && b && strcmp(a, b) == 0); };
    return line == other.line && same(file, other.file) && same(what, other.what);
}

std::string Site::text() const {
    if (file == nullptr) return what == nullptr ? "(unknown place)" : what;
    const char* slash = strrchr(file, '/');
    return std::string(what) + " at " + (slash ? slash + 1 : file) + ":" + std::to_string(line);
}

std::string text(const uint3& i) {
    return "(" + std::to_string(i.x) + "," + std::to_string(i.y) + "," + std::to_string(i.z) + ")";
}

std::string where() { return "block " + text(blockIdx) + " thread " + text(threadIdx); }

// ---- choosing and switching ----

void Block::make_ready(Thread& thread) {
    thread.state = State::READY;
    Warp& warp = warps_[thread.linear / 32];
    warp.ready |= 1u << thread.lane;
    ready_warps_ |= 1u << thread.linear / 32;
}

Thread* Block::pick() {
    if (ready_warps_ == 0) return nullptr;
    unsigned number = schedule().pick_warp(ready_warps_);
    Warp& warp = warps_[number];
    unsigned lane = schedule().pick_lane(warp.ready);
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0) ready_warps_ &= ~(1u << number);
    return &threads_[number * 32 + lane];
}

// The running thread waits in `state` (or is merely one of the ready ones); somebody else goes on.
void Block::suspend(State state) {
    Thread& self = *current_;
    if (state != State::READY) self.state = state;
    if (live_ > 0 && schedule().hurries()) hopper::finish_a_copy();
    Thread* next = pick();
    while (next == nullptr && live_ > 0 && hopper::finish_a_copy()) next = pick();
    watchdog::progress = watchdog::progress + 1;
    if (next == &self) return;
    current_ = next;
    if (next != nullptr) threadIdx = next->index;
    switch_context(self.context, next != nullptr ? next->context : main_);
}

void Block::leave() {
    Context nowhere;
    switch_context(nowhere, main_);
    __builtin_unreachable();
}

void Block::thread_main() {
    Block& self = block();
    self.kernel_->run(self.params_);
    self.end_thread();
}

void Block::end_thread() {
    Thread& self = *current_;
    if (self.ahead) fail("a launch that was set up ahead ended without begin_launch(), " + where());
    warps_[self.linear / 32].ended |= 1u << self.lane;
    self.site = Site{"the end of the kernel"};
    self.state = State::ENDED;
    --live_;
    // Barriers, of the block and of a warp, wait for the threads that have not ended.
    if (live_ > 0 && at_barrier_ == live_) release_barrier();
    Thread* lanes = &threads_[self.linear & ~31u];
    for (uint32_t rest = warps_[self.linear / 32].waiting; rest != 0; rest &= rest - 1) {
        Thread& other = lanes[std::countr_zero(rest)];
        if (other.state == State::IN_WARP && !other.call->needs_all) try_to_complete(other);
    }
    suspend(State::ENDED);
    __builtin_unreachable();
}

void Block::fail(const std::string& what) {
    failure_ = what;
    leave();
}

void Block::fail_from_signal(std::string (*explain)()) {
    explain_ = explain;
    leave();
}

// ---- the whole block ----

void Block::prepare(dim3 shape, bool ahead) {
    count_ = shape.x * shape.y * shape.z;
    while (stacks_.size() < count_) stacks_.push_back(new Stack);
    if (threads_.size() < count_) threads_.resize(count_);
    live_ = count_;
    at_barrier_ = 0;
    ready_warps_ = 0;
    failure_.clear();
    explain_ = nullptr;
    for (Warp& warp : warps_) warp = Warp{};
    for (Warpgroup& warpgroup : warpgroups_) warpgroup.here = 0;
    for (unsigned i = 0; i < count_; ++i) {
        Thread& thread = threads_[i];
        thread.context = stacks_[i]->start(thread_main);
        thread.index = uint3{i % shape.x, i / shape.x % shape.y, i / (shape.x * shape.y)};
        thread.linear = i;
        thread.lane = i % 32;
        thread.call = nullptr;
        thread.site = Site{"the start of the kernel"};
        thread.copies.clear();
        thread.groups.clear();
        thread.uncommitted = 0;
        thread.ahead = ahead;
        warps_[i / 32].exists |= 1u << thread.lane;
        make_ready(thread);
    }
}

bool Block::run(const Kernel& kernel, const void* params, dim3 shape, bool ahead) {
    kernel_ = &kernel;
    params_ = params;
    prepare(shape, ahead);
    schedule().begin_interval();
    race::begin_block();
    hopper::begin_block();
    current_ = pick();
    threadIdx = current_->index;
    switch_context(main_, current_->context);
    // Here again: all threads have ended, or one failed, or none is ready.
    if (explain_ != nullptr) failure_ = explain_();
    if (failure_.empty() && live_ > 0) failure_ = explain_deadlock();
    if (failure_.empty()) failure_ = hopper::left_undone();
    current_ = nullptr;
    return failure_.empty();
}

// ---- barriers ----

Votes Block::barrier(const Site& site, bool predicate) {
    Thread& self = *current_;
    if (at_barrier_ == 0) {
        barrier_site_ = site;
        barrier_first_ = &self;
        votes_ = Votes{0, 1, 0};
    } else if (!(barrier_site_ == site)) {
        fail("divergent barrier: " + site.text() + ", while thread " + text(barrier_first_->index) + " waits in " +
             barrier_site_.text());
    }
    self.site = site;
    self.state = State::AT_BARRIER;
    votes_.count += predicate;
    votes_.all &= predicate;
    votes_.any |= predicate;
    if (++at_barrier_ == live_) release_barrier();
    // The last thread to arrive is ready again as well: who goes on first is the schedule's choice. `released_` is
    // overwritten when the next barrier is complete, and by then everybody has left this one.
    suspend(self.state);
    return released_;
}

void Block::release_barrier() {
    released_ = votes_;
    at_barrier_ = 0;
    schedule().begin_interval();
    race::barrier();
    for (unsigned i = 0; i < count_; ++i) {
        if (threads_[i].state == State::AT_BARRIER) make_ready(threads_[i]);
    }
}

// ---- warps ----

void Block::rendezvous(const WarpCall& call, void* slot, const Site& site) {
    Thread& self = *current_;
    self.site = site;
    if ((call.mask >> self.lane & 1) == 0) {
        fail(site.text() + ": the calling lane " + std::to_string(self.lane) + " is not in the mask");
    }
    Warp& warp = warps_[self.linear / 32];
    Thread* lanes = &threads_[self.linear & ~31u];
    uint32_t gone = call.mask & (warp.ended | ~warp.exists);
    if (gone != 0 && call.needs_all) {
        fail(site.text() + ": lane " + std::to_string(std::countr_zero(gone)) +
             " is in the mask but has ended or does not exist");
    }
    // Those that wait with the same mask have been compared with each other: one of them is enough.
    for (uint32_t rest = call.mask & warp.waiting; rest != 0; rest &= rest - 1) {
        const Thread& other = lanes[std::countr_zero(rest)];
        if (other.call->mask != call.mask) continue;
        if (other.site == site) break;
        fail("divergent warp: " + site.text() + ", while lane " + std::to_string(other.lane) +
             " of the same mask waits in " + other.site.text());
    }
    self.call = &call;
    self.slot = slot;
    self.state = State::IN_WARP;
    warp.waiting |= 1u << self.lane;
    try_to_complete(self);
    suspend(self.state);
}

// If all live lanes of this waiting thread's mask wait with it: runs the call and makes them ready.
void Block::try_to_complete(Thread& waiting) {
    const WarpCall& call = *waiting.call;
    Warp& warp = warps_[waiting.linear / 32];
    Thread* lanes = &threads_[waiting.linear & ~31u];
    uint32_t here = call.mask & warp.exists & ~warp.ended;
    if ((warp.waiting & here) != here) return;
    void* slots[32] = {};
    for (uint32_t rest = here; rest != 0; rest &= rest - 1) {
        unsigned lane = std::countr_zero(rest);
        if (lanes[lane].call->mask != call.mask) return;
        slots[lane] = lanes[lane].slot;
    }
    warp.waiting &= ~here;
    if (call.complete != nullptr) call.complete(slots, here);
    if (call.orders_memory) race::warp_barrier(waiting.linear / 32, here);
    for (uint32_t rest = here; rest != 0; rest &= rest - 1) make_ready(lanes[std::countr_zero(rest)]);
}

// ---- warpgroups and mbarriers ----

void Block::warpgroup_rendezvous(const Site& site, void* slot, void (*complete)(void* const slots[128], unsigned warp)) {
    Thread& self = *current_;
    self.site = site;
    unsigned number = self.linear / 128;
    Warpgroup& warpgroup = warpgroups_[number];
    for (unsigned warp = 4 * number; warp < 4 * number + 4; ++warp) {
        if (warps_[warp].exists == FULL_WARP && warps_[warp].ended == 0) continue;
        fail(site.text() + ": warp " + std::to_string(warp) + " of the warpgroup has ended or does not exist");
    }
    if (warpgroup.here == 0) warpgroup.site = site;
    if (!(warpgroup.site == site)) {
        fail("divergent warpgroup: " + site.text() + ", while others of it wait in " + warpgroup.site.text());
    }
    warpgroup.slots[self.linear % 128] = slot;
    self.state = State::IN_WARPGROUP;
    if (++warpgroup.here == 128) {
        warpgroup.here = 0;
        complete(warpgroup.slots, 4 * number);
        for (unsigned i = 128 * number; i < 128 * number + 128; ++i) make_ready(threads_[i]);
    }
    suspend(self.state);
}

void Block::wait_at(const u64* barrier) {
    current_->barrier = barrier;
    suspend(State::AT_MBARRIER);
}

void Block::wake_waiting(const u64* barrier) {
    for (unsigned i = 0; i < count_; ++i) {
        if (threads_[i].state == State::AT_MBARRIER && threads_[i].barrier == barrier) make_ready(threads_[i]);
    }
}

// ---- reports ----

std::string Block::describe(const Thread& thread) const {
    switch (thread.state) {
        case State::AT_BARRIER: return "waits in " + thread.site.text();
        case State::IN_WARP: {
            char mask[16];
            snprintf(mask, sizeof mask, "0x%08x", thread.call->mask);
            return "waits in " + thread.site.text() + " for the lanes of mask " + mask;
        }
        case State::IN_WARPGROUP: return "waits in " + thread.site.text() + " for the four warps of its warpgroup";
        case State::AT_MBARRIER: return "waits in " + thread.site.text() + " for " + hopper::missing(thread);
        case State::ENDED: return "has ended";
        case State::READY: return "could go on";
    }
    return "";
}

// Groups neighbouring threads that wait for the same thing, so that the report stays short.
std::string Block::explain_deadlock() const {
    std::string out = "deadlock: no thread of block " + text(blockIdx) + " can go on";
    unsigned groups = 0;
    for (unsigned first = 0; first < count_;) {
        std::string what = describe(threads_[first]);
        unsigned last = first;
        while (last + 1 < count_ && describe(threads_[last + 1]) == what) ++last;
        if (++groups > 8) return out + "\n    …";
        out += "\n    thread " + text(threads_[first].index);
        if (last > first) out += " to " + text(threads_[last].index);
        out += " " + what;
        first = last + 1;
    }
    return out;
}

}  // namespace emu
