// In which order things run that CUDA leaves without an order: blocks of a grid, warps of a block, lanes of a warp,
// independent nodes of a graph. A kernel whose result depends on it has a bug; a test runs it under several orders and
// compares bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

class Schedule {
public:
    // "forward", "reverse", "random:SEED"; anything else leaves the schedule as it is and gives false.
    bool set(const char* text);
    std::string name() const;

    // From here on the choices depend on the seed and on what follows, not on what ran before.
    void begin_launch();
    // A new barrier interval: the random schedule may now prefer other warps.
    void begin_interval();

    // The number of one set bit.
    unsigned pick_warp(uint32_t ready);
    unsigned pick_lane(uint32_t ready);

    // The i-th of n blocks or nodes, 0 ≤ i < n, each exactly once.
    uint64_t nth(uint64_t i, uint64_t n);

    // One of n copies of tiles that are on their way, 0 ≤ result < n; and whether one of them comes now although threads could
    // go on: at random, and otherwise never.
    size_t pick_copy(size_t n);
    bool hurries();

    // One of n pieces of work that nothing orders, 0 ≤ result < n.
    size_t pick(size_t n);

private:
    enum { FORWARD, REVERSE, RANDOM } kind_ = FORWARD;
    uint64_t seed_ = 0, state_ = 0, picks_ = 0, hurry_ = 0;
    uint64_t stride_ = 1, offset_ = 0, of_ = 0;
    bool ranked_ = false;
    uint8_t rank_[32] = {};

    uint32_t random();
    static uint32_t next(uint64_t& state);
    unsigned random_bit(uint32_t set);
};

// The process's schedule; its first value comes from ELBO_EMU_SCHEDULE.
Schedule& schedule();

}  // namespace emu
