// What several processes have of the same numbers, added up: to[i] = Σ_r parts[r · len + i], r = 0, 1, …, in f64, rounded once.
// Twin of `Ranks::sum` in src/train/ranks/mod.rs: the same additions in the same order, so the same bits.
//
// Launch:
//   threads = 256, shared = 0, grid = max(⌈len / 256⌉, 1), at most 2³¹ − 1
#include "params.cuh"

ELBO_KERNEL(sum_parts, 256, SumPartsParams) {
    const u64 stride = static_cast<u64>(gridDim.x) * blockDim.x;
    for (u64 i = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.len; i += stride) {
        double sum = p.parts[i];
        for (int r = 1; r < p.ranks; r++) sum += static_cast<double>(p.parts[r * p.len + i]);
        p.to[i] = static_cast<float>(sum);
    }
}
