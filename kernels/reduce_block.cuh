// Folds over the threads of a warp and of a block, in an order that depends on the number of threads alone.
#pragma once
#include "math.cuh"

struct Sum {
    static __device__ __forceinline__ float identity() { return 0.0f; }
    __device__ __forceinline__ float operator()(float a, float b) const { return a + b; }
};

struct Max {
    static __device__ __forceinline__ float identity() { return math::from_bits(math::SIGN | math::INFINITY_BITS).v; }
    __device__ __forceinline__ float operator()(float a, float b) const { return math::max(a, b).v; }
};

__device__ __forceinline__ float from_lane_below(float v, int offset) { return __shfl_down_sync(~0u, v, offset); }

// A double travels as its two halves.
__device__ __forceinline__ double from_lane_below(double v, int offset) {
    const u64 bits = static_cast<u64>(__double_as_longlong(v));
    const u64 low = __shfl_down_sync(~0u, static_cast<u32>(bits), offset);
    const u64 high = __shfl_down_sync(~0u, static_cast<u32>(bits >> 32), offset);
    return __longlong_as_double(static_cast<long long>(high << 32 | low));
}

// The fold over a warp, in lane 0: lanes 16 apart first, then 8, 4, 2, 1. All 32 lanes take part.
template <class T, class Fold>
__device__ __forceinline__ T fold_warp(T v, Fold fold) {
#pragma unroll
    for (int offset = 16; offset > 0; offset >>= 1) v = fold(v, from_lane_below(v, offset));
    return v;
}

// The fold over a block of whole warps, in thread 0: each warp, then the warps in order. `shared` holds a float per
// warp; it may be in use until here, and again after the next __syncthreads().
template <class Fold>
__device__ __forceinline__ float fold_block(float v, Fold fold, float* shared, int thread, int threads) {
    v = fold_warp(v, fold);
    __syncthreads();
    if (thread % 32 == 0) shared[thread / 32] = v;
    __syncthreads();
    if (thread == 0) {
        for (int warp = 1; warp < threads / 32; warp++) v = fold(v, shared[warp]);
    }
    return v;
}
