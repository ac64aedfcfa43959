// Sums and maxima over axes: out[o, i] = Σ_r x[o, r, i] for x seen as [outer, reduced, inner], contiguous.
// Twin of src/engine/steps/reduce.rs.
//
// Two kernels. Where inner = 1, the elements of one sum are neighbours and a team of threads shares it; where it is
// larger, neighbouring threads take neighbouring sums. Which thread adds what, and in which order, depends on the shape
// alone.
//
// Launch of reduce_rows (inner = 1):
//   team    = 32 if reduced ≤ 1024, 256 if reduced ≤ 32768, else 1024
//   threads = max(team, 256), shared = 128 bytes
//   grid    = (max(⌈outer · team / threads⌉, 1), 1)
// and for the few long rows that would leave most of a GPU idle, reduced > 32768 and outer ≤ 128:
//   per_part = max(32768, ⌈reduced / ⌊256 / outer⌋⌉ rounded up to a multiple of 4), parts = ⌈reduced / per_part⌉ ≤ 256
//   threads  = 1024, grid = (parts, outer); elsewhere parts = 1
//
// Launch of reduce_cols (inner > 1):
//   along   = 1 if reduced ≤ 8, 8 if reduced ≤ 512, else 32       (threads that share a sum)
//   threads = 256, shared = 1024 bytes
//   grid    = max(⌈outer · inner / (256 / along)⌉, 1)
#include "params.cuh"
#include "ptx.cuh"
#include "quad.cuh"
#include "reduce_block.cuh"

// A thread's part of a row of `n`: quads thread, thread + team, …, each lane folded on its own and then the lanes.
template <class Fold>
__device__ __forceinline__ float fold_strided(const float* x, int n, int thread, int team, Fold fold) {
    const float e = Fold::identity();
    float4 y = splat(e);
    const int whole = n / 4;
#pragma unroll 1  // two loads of a thread on their way would take more than the 32 registers of 2048 threads
    for (int quad = thread; quad < whole; quad += team) {
        const float4 v = load_quad(x + 4ll * quad, 4);
        y = make_float4(fold(y.x, v.x), fold(y.y, v.y), fold(y.z, v.z), fold(y.w, v.w));
    }
    float rest = e;
    // The last n mod 4 elements go to one thread each.
    if (thread < n % 4) rest = x[4ll * whole + thread];
    return fold(fold(fold(y.x, y.y), fold(y.z, y.w)), rest);
}

// A row that several blocks share. Every block leaves the fold of its part in the workspace and draws a ticket; the one
// that draws the last folds the parts, by their numbers and not by who came when.
template <class Fold>
__device__ __forceinline__ void reduce_shared_row(const ReduceParams& p, float* shared, Fold fold) {
    const int thread = threadIdx.x, threads = blockDim.x, part = blockIdx.x;
    const u64 row = blockIdx.y;
    const int first = part * p.per_part;
    const int n = p.reduced - first < p.per_part ? p.reduced - first : p.per_part;
    float* const parts = p.workspace + row * p.parts;

    const float y = fold_strided(p.x + (row * p.reduced + first), n, thread, threads, fold);
    const float of_part = fold_block(y, fold, shared, thread, threads);
    u32* const last = reinterpret_cast<u32*>(shared);
    if (thread == 0) {
        parts[part] = of_part;
        __threadfence();
        *last = atomicAdd(&p.tickets[row], 1u) + 1u == static_cast<u32>(p.parts);
        if (*last) p.tickets[row] = 0;
        __threadfence();
    }
    __syncthreads();
    if (!*last) return;
    const float total = fold_block(thread < p.parts ? parts[thread] : Fold::identity(), fold, shared, thread, threads);
    if (thread == 0) p.out[row] = total;
}

template <class Fold>
__device__ __forceinline__ void reduce_row(const ReduceParams& p, float* shared, Fold fold) {
    const int thread = threadIdx.x, threads = blockDim.x;
    if (p.parts > 1) {
        reduce_shared_row(p, shared, fold);
    } else if (p.reduced <= 1024) {
        const u64 o = static_cast<u64>(blockIdx.x) * (threads / 32) + thread / 32;
        if (o >= static_cast<u64>(p.outer)) return;
        const float y = fold_warp(fold_strided(p.x + o * p.reduced, p.reduced, thread % 32, 32, fold), fold);
        if (thread % 32 == 0) p.out[o] = y;
    } else {
        const u64 o = blockIdx.x;
        if (o >= static_cast<u64>(p.outer)) return;
        const float y = fold_strided(p.x + o * p.reduced, p.reduced, thread, threads, fold);
        const float total = fold_block(y, fold, shared, thread, threads);
        if (thread == 0) p.out[o] = total;
    }
}

ELBO_KERNEL(reduce_rows, 1024, ReduceParams) {
    ELBO_SHARED(float, shared);
    begin_launch();
    if (p.max) reduce_row(p, shared, Max());
    else reduce_row(p, shared, Sum());
}

template <class Fold>
__device__ __forceinline__ void reduce_col(const ReduceParams& p, float* shared, Fold fold) {
    const int along = p.reduced <= 8 ? 1 : p.reduced <= 512 ? 8 : 32;
    const int across = 256 / along;
    const int lane = threadIdx.x % across, part = threadIdx.x / across;
    const u64 column = static_cast<u64>(blockIdx.x) * across + lane;  // o · inner + i
    const bool inside = column < static_cast<u64>(p.outer) * p.inner;
    float y = Fold::identity();
    if (inside) {
        const u64 o = column / p.inner, i = column % p.inner;
        const float* x = p.x + (o * p.reduced * p.inner + i);
        // Four folds at a time, so that four loads are on their way.
        float parts[4] = {y, y, y, y};
        int r = part;
        for (; r + 3 * along < p.reduced; r += 4 * along) {
#pragma unroll
            for (int k = 0; k < 4; k++) parts[k] = fold(parts[k], x[static_cast<u64>(r + k * along) * p.inner]);
        }
        for (; r < p.reduced; r += along) parts[0] = fold(parts[0], x[static_cast<u64>(r) * p.inner]);
        y = fold(fold(parts[0], parts[1]), fold(parts[2], parts[3]));
    }
    if (along == 1) {
        if (inside) p.out[column] = y;
        return;
    }
    shared[threadIdx.x] = y;
    for (int half = along / 2; half > 0; half /= 2) {
        __syncthreads();
        if (part < half) shared[threadIdx.x] = fold(shared[threadIdx.x], shared[threadIdx.x + half * across]);
    }
    if (part == 0 && inside) p.out[column] = shared[lane];
}

ELBO_KERNEL(reduce_cols, 256, ReduceParams) {
    ELBO_SHARED(float, shared);
    begin_launch();
    if (p.max) reduce_col(p, shared, Max());
    else reduce_col(p, shared, Sum());
}
