// The update of a run of neighbouring parameters: one pass over p, g, m, v (update.cuh has the formulas). Twin of
// src/engine/steps/optimize.rs.
//
// Launch of adam and sgd:
//   threads = 256, shared = 0, grid = ⌈(len / 4 + 2) / 256⌉
// Launch of tick:
//   threads = 1, grid = 1, shared = 0
//
// A thread takes a quad. Runs begin anywhere, so quads are cut at 16-byte boundaries of the memory, which leaves a
// shorter one at either end; where the four arrays are not aligned alike, all accesses are of single floats.
#include "ptx.cuh"
#include "update.cuh"

// A thread's part of the run: elements first … first + n − 1; n ≤ 0 where there is none.
struct Part {
    u64 first;
    int n;
};

__device__ __forceinline__ Part part_of_run(const OptimizeParams& p) {
    const u64 thread = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    const u64 skip = reinterpret_cast<u64>(p.of.p.first) / 4 % 4;  // floats between the last boundary and the run's begin
    const u64 begin = thread * 4 > skip ? thread * 4 - skip : 0;
    const u64 end = min(thread * 4 + 4 - skip, p.len);
    return {begin, begin < end ? static_cast<int>(end - begin) : 0};
}

ELBO_KERNEL(adam, 256, OptimizeParams) {
    begin_launch();
    const Update update(p.clock, p.by, p.scale.there() ? *p.scale : 1.0f);
    const Part at = part_of_run(p);
    if (at.n > 0) update.adam_quad(p.of, at.first, load_quad(p.g + at.first, at.n), at.n);
    end_step(p.clock, p.end);
}

ELBO_KERNEL(sgd, 256, OptimizeParams) {
    begin_launch();
    const Update update(p.clock, p.by, p.scale.there() ? *p.scale : 1.0f);
    const Part at = part_of_run(p);
    if (at.n > 0) update.sgd_quad(p.of, at.first, load_quad(p.g + at.first, at.n), at.n);
    end_step(p.clock, p.end);
}

// Ends a step that no other kernel ends.
ELBO_KERNEL(tick, 1, TickParams) {
    begin_launch();
    p.ctl->now += 1;
}
