// The three schedules. The random one is a pure function of its seed and of the launch, so a failure can be repeated.
#include "schedule.h"

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>

namespace emu {

Schedule& schedule() {
    static Schedule* instance = [] {
        auto made = new Schedule;
        const char* text = getenv("ELBO_EMU_SCHEDULE");
        if (text != nullptr && !made->set(text)) {
            fprintf(stderr, "ELBO_EMU_SCHEDULE=%s: must be forward, reverse or random:SEED\n", text);
            exit(2);
        }
        return made;
    }();
    return *instance;
}

bool Schedule::set(const char* text) {
    if (strcmp(text, "forward") == 0) {
        kind_ = FORWARD;
    } else if (strcmp(text, "reverse") == 0) {
        kind_ = REVERSE;
    } else if (strncmp(text, "random:", 7) == 0) {
        char* end;
        uint64_t seed = strtoull(text + 7, &end, 10);
        if (text[7] == 0 || *end != 0) return false;
        kind_ = RANDOM;
        seed_ = seed;
    } else {
        return false;
    }
    of_ = 0;
    picks_ = seed_;
    return true;
}

std::string Schedule::name() const {
    if (kind_ == FORWARD) return "forward";
    if (kind_ == REVERSE) return "reverse";
    return "random:" + std::to_string(seed_);
}

void Schedule::begin_launch() {
    state_ = seed_;
    hurry_ = ~seed_;
    of_ = 0;
    begin_interval();
}

// SplitMix64 (Steele, Lea, Flood 2014).
uint32_t Schedule::next(uint64_t& state) {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return static_cast<uint32_t>((z ^ (z >> 31)) >> 32);
}

uint32_t Schedule::random() { return next(state_); }

// Warps that advance evenly rarely meet a race: the write comes early in one interval and the read late in the next.
// So in half of the intervals one warp runs as far as it can before the next one starts, in random order.
void Schedule::begin_interval() {
    if (kind_ != RANDOM) return;
    ranked_ = random() & 1;
    if (!ranked_) return;
    std::iota(rank_, rank_ + 32, 0);
    for (unsigned i = 31; i > 0; --i) std::swap(rank_[i], rank_[random() % (i + 1)]);
}

unsigned Schedule::random_bit(uint32_t set) {
    for (unsigned skip = random() % std::popcount(set); skip > 0; --skip) set &= set - 1;
    return std::countr_zero(set);
}

unsigned Schedule::pick_warp(uint32_t ready) {
    if (kind_ == FORWARD) return std::countr_zero(ready);
    if (kind_ == REVERSE) return 31 - std::countl_zero(ready);
    if (!ranked_) return random_bit(ready);
    unsigned i = 0;
    while ((ready >> rank_[i] & 1) == 0) ++i;
    return rank_[i];
}

unsigned Schedule::pick_lane(uint32_t ready) {
    if (kind_ == FORWARD) return std::countr_zero(ready);
    if (kind_ == REVERSE) return 31 - std::countl_zero(ready);
    return random_bit(ready);
}

// Random: i ↦ (offset + i · stride) mod n with stride and n coprime, which visits every number once.
uint64_t Schedule::nth(uint64_t i, uint64_t n) {
    if (kind_ == FORWARD) return i;
    if (kind_ == REVERSE) return n - 1 - i;
    if (of_ != n) {
        of_ = n;
        offset_ = random() % n;
        do stride_ = 1 + random() % n;
        while (std::gcd(stride_, n) != 1);
    }
    return (offset_ + i * stride_) % n;
}

size_t Schedule::pick_copy(size_t n) {
    if (kind_ == FORWARD) return 0;
    if (kind_ == REVERSE) return n - 1;
    return random() % n;
}

bool Schedule::hurries() { return kind_ == RANDOM && (next(hurry_) & 63) == 0; }

size_t Schedule::pick(size_t n) {
    if (kind_ == FORWARD) return 0;
    if (kind_ == REVERSE) return n - 1;
    return next(picks_) % n;
}

}  // namespace emu
