// The update of a run of neighbouring parameters: one pass over p, g, m, v, in the operation order of
// Optimizer::update in src/engine/optim.rs, so that equal gradients give equal bits. Twin of src/engine/steps/optimize.rs.
//
//   adam: m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  p ← p − rate · m / (√v · root_scale + ε)
//   sgd:  m ← μ m + g,  p ← p − rate · m
//
// A moment next to zero is zero, as on the CPU, where it would become a denormal that slows every later update.
//
// Launch of adam and sgd:
//   threads = 256, shared = 0, grid = ⌈(len / 4 + 2) / 256⌉
// Launch of tick:
//   threads = 1, grid = 1, shared = 0
//
// A thread takes a quad. Runs begin anywhere, so quads are cut at 16-byte boundaries of the memory, which leaves a
// shorter one at either end; where the four arrays are not aligned alike, all accesses are of single floats.
#include "params.cuh"
#include "math.cuh"
#include "quad.cuh"

// LEAST_FIRST_MOMENT and LEAST_SECOND_MOMENT of src/engine/optim.rs.
constexpr float LEAST_FIRST_MOMENT = 1e-30f;
constexpr float LEAST_SECOND_MOMENT = 1e-36f;

__device__ __forceinline__ f32 or_zero(f32 x, float least) { return math::select(math::abs(x) < least, 0.0f, x); }

// A thread's part of the run: elements first … first + n − 1; n ≤ 0 where there is none.
struct Part {
    u64 first;
    int n;
};

__device__ __forceinline__ Part part_of_run(const OptimizeParams& p) {
    const u64 thread = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;
    const u64 skip = reinterpret_cast<u64>(p.p) / 4 % 4;  // floats between the last boundary and the run's begin
    const u64 begin = thread * 4 > skip ? thread * 4 - skip : 0;
    const u64 end = min(thread * 4 + 4 - skip, p.len);
    return {begin, begin < end ? static_cast<int>(end - begin) : 0};
}

// The numbers of one update, in f32 as on the CPU.
struct Update {
    f32 scale, rate, root_scale, beta1, beta2, one_minus_beta1, one_minus_beta2, eps, momentum;

    __device__ __forceinline__ explicit Update(const OptimizeParams& p) {
        const StepValues& values = p.clock.table[p.clock.ctl->now];
        scale = p.scale ? *p.scale : 1.0f;
        rate = values.rate;
        root_scale = values.root_scale;
        beta1 = p.beta1;
        beta2 = p.beta2;
        one_minus_beta1 = p.one_minus_beta1;
        one_minus_beta2 = p.one_minus_beta2;
        eps = p.eps;
        momentum = p.momentum;
    }

    __device__ __forceinline__ void moments(float gradient, float& m, float& v) const {
        const f32 g = f32(gradient) * scale;
        m = or_zero(beta1 * m + one_minus_beta1 * g, LEAST_FIRST_MOMENT).v;
        v = or_zero(beta2 * v + one_minus_beta2 * g * g, LEAST_SECOND_MOMENT).v;
    }

    __device__ __forceinline__ void adam(float& p, float m, float v) const {
        p = (f32(p) - rate * m / (math::sqrt(v) * root_scale + eps)).v;
    }

    __device__ __forceinline__ void sgd(float& p, float gradient, float& m) const {
        m = or_zero(momentum * m + f32(gradient) * scale, LEAST_FIRST_MOMENT).v;
        p = (f32(p) - rate * m).v;
    }
};

// The step is over when all blocks are: the last to take a ticket ends it and leaves the ticket at zero.
__device__ __forceinline__ void tick_after_all_blocks(const OptimizeParams& p) {
    if (!p.tick) return;
    __syncthreads();
    if (threadIdx.x != 0) return;
    __threadfence();
    if (atomicAdd(p.ticket, 1u) == gridDim.x - 1) {
        *p.ticket = 0;
        p.clock.ctl->now += 1;
    }
}

ELBO_KERNEL(adam, 256, OptimizeParams) {
    const Update update(p);
    const Part at = part_of_run(p);
    if (at.n > 0) {
        const float4 g = load_quad(p.g + at.first, at.n);
        float4 m = load_quad(p.m + at.first, at.n), v = load_quad(p.v + at.first, at.n);
        float4 w = load_quad(p.p + at.first, at.n);
        update.moments(g.x, m.x, v.x);
        update.moments(g.y, m.y, v.y);
        update.moments(g.z, m.z, v.z);
        update.moments(g.w, m.w, v.w);
        store_quad(p.m + at.first, m, at.n);
        store_quad(p.v + at.first, v, at.n);
        update.adam(w.x, m.x, v.x);
        update.adam(w.y, m.y, v.y);
        update.adam(w.z, m.z, v.z);
        update.adam(w.w, m.w, v.w);
        store_quad(p.p + at.first, w, at.n);
    }
    tick_after_all_blocks(p);
}

ELBO_KERNEL(sgd, 256, OptimizeParams) {
    const Update update(p);
    const Part at = part_of_run(p);
    if (at.n > 0) {
        float4 w = load_quad(p.p + at.first, at.n), m = load_quad(p.m + at.first, at.n);
        const float4 g = load_quad(p.g + at.first, at.n);
        update.sgd(w.x, g.x, m.x);
        update.sgd(w.y, g.y, m.y);
        update.sgd(w.z, g.z, m.z);
        update.sgd(w.w, g.w, m.w);
        store_quad(p.p + at.first, w, at.n);
        store_quad(p.m + at.first, m, at.n);
    }
    tick_after_all_blocks(p);
}

// Ends a step that no other kernel ends.
ELBO_KERNEL(tick, 1, TickParams) { p.ctl->now += 1; }
