// The matrix product in f32 on the ordinary arithmetic units.
//
// A thread owns a grid of sums and needs, for each k, one column of A and one row of B: with 8 × 8 sums, 16 numbers from
// shared memory feed 64 multiply-adds. The 32 lanes of a warp stand 4 × 8, so that a warp reads 4 (or 8) groups of four
// neighbours at a time, without bank conflicts, and stores whole lines of C. Every sum is one chain of fused
// multiply-adds in the order of k (one chain per slice and split).
#pragma once
#include "gemm_finish.cuh"

template <class T>
struct SimtSums {
    static constexpr int M = T::WARP_M / 4, N = T::WARP_N / 8, QUADS = M * N / 4;
    float sum[M][N];

    // The thread's first row and column in the tile. Its rows come in groups of four, 16 apart; columns likewise, 32
    // apart.
    static __device__ __forceinline__ int row0() {
        return threadIdx.x / 32 % (T::WARPS_M * T::WARPS_N) / T::WARPS_N * T::WARP_M + threadIdx.x % 32 / 8 * 4;
    }
    static __device__ __forceinline__ int col0() {
        return threadIdx.x / 32 % T::WARPS_N * T::WARP_N + threadIdx.x % 8 * 4;
    }

    // Quad q in the tile.
    static __device__ __forceinline__ int row(int q) { return row0() + q / (N / 4) / 4 * 16 + q / (N / 4) % 4; }
    static __device__ __forceinline__ int col(int q) { return col0() + q % (N / 4) * 32; }
    __device__ __forceinline__ float4 quad(int q) const {
        const float* s = &sum[q / (N / 4)][q % (N / 4) * 4];
        return make_float4(s[0], s[1], s[2], s[3]);
    }

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < M; ++i)
#pragma unroll
            for (int j = 0; j < N; ++j) sum[i][j] = 0.f;
    }

    __device__ __forceinline__ void multiply(const float* a, const float* b, bool, bool) {
        const int slice = threadIdx.x / 32 / (T::WARPS_M * T::WARPS_N) * T::SLICE_DEPTH;
        a += T::A::at(slice, row0(), false);
        b += T::B::at(slice, col0(), false);
#pragma unroll
        for (int k = 0; k < T::SLICE_DEPTH; ++k) {
            float x[M], y[N];
#pragma unroll
            for (int i = 0; i < M; i += 4) unpack(x + i, a + k * T::A::PITCH + i * 4);
#pragma unroll
            for (int j = 0; j < N; j += 4) unpack(y + j, b + k * T::B::PITCH + j * 8);
#pragma unroll
            for (int i = 0; i < M; ++i)
#pragma unroll
                for (int j = 0; j < N; ++j) sum[i][j] = __fmaf_rn(x[i], y[j], sum[i][j]);
        }
    }

    static __device__ __forceinline__ void unpack(float* x, const float* from) {
        const float4 v = *reinterpret_cast<const float4*>(from);
        x[0] = v.x, x[1] = v.y, x[2] = v.z, x[3] = v.w;
    }
};
