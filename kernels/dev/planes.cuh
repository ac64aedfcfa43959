// What rungs 9 and 10 of the ladder share: matrices as planes of bf16, and the way of a strip of them to the tensor
// cores. To be read with gemm_9_planes.cu.
//
// A block computes 128 × 128 elements of C, its eight warps 64 × 32 each, and k advances by 32. ../planes.cuh says what a plane is, and
// how a strip of one lies in shared memory so that no two rows of a matrix that ldmatrix reads begin at one bank: a row of A's strip
// is 32 of k, four chunks, one of B's 128 columns, sixteen.
//
// ---- Lanes ----
//
// ldmatrix_x4 reads four such matrices; lane l names the row l mod 8 of matrix l / 8. Which the matrices are:
//
//        of A, 16 rows × 16 of k                 of B, 16 of k × 16 columns, turned on the way
//
//                  k 0–7    k 8–15                          cols 0–7   cols 8–15
//      rows 0–7    lanes    lanes                 k 0–7      lanes      lanes
//                  0–7      16–23                            0–7        16–23
//      rows 8–15   lanes    lanes                 k 8–15     lanes      lanes
//                  8–15     24–31                            8–15       24–31
//
// So in both lane l points to row l mod 16 and chunk l / 16. What it gets, with g = l / 4 and t = l mod 4, is what
// mma_m16n8k16_bf16 wants of it:
//
//        left[0]   row g,     k 2t, 2t + 1       right[2j][0]       column 16j + g,      k 2t, 2t + 1
//        left[1]   row g + 8, k 2t, 2t + 1       right[2j][1]       column 16j + g,      k 2t + 8, 2t + 9
//        left[2]   row g,     k 2t + 8, 2t + 9   right[2j + 1][0]   column 16j + g + 8,  k 2t, 2t + 1
//        left[3]   row g + 8, k 2t + 8, 2t + 9   right[2j + 1][1]   column 16j + g + 8,  k 2t + 8, 2t + 9
#pragma once
#include "../planes.cuh"

// src/engine/device/cuda/planes.rs has the twin of this struct.

struct PlanesParams {
    const u16* a;  // [planes][m][a_pitch]
    const u16* b;  // [planes][k][b_pitch]
    float* c;      // [m, n], rows ldc apart
    int m, n, k, a_pitch, b_pitch, ldc;
};
static_assert(sizeof(PlanesParams) == 48);

static constexpr int DEPTH = 32, STAGES = 3;                    // k of a strip; strips in shared memory at a time
static constexpr int A_CHUNKS = DEPTH / 8, B_CHUNKS = 128 / 8;  // of a row
static constexpr int B_STRIP = 128 * DEPTH, STRIP = 2 * B_STRIP;  // [128 rows][32 of k], then [32 of k][128 columns]

// Starts the copies of steps k0 … k0 + 31 of a plane of A and one of B: four chunks of 16 bytes by every thread.
static __device__ __forceinline__ void start_copies(const PlanesParams& p, const u16* a, const u16* b, u16* strip,
                                                    int k0) {
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int e = threadIdx.x + 256 * i;
        const int ar = e / A_CHUNKS, ac = e % A_CHUNKS, br = e / B_CHUNKS, bc = e % B_CHUNKS;
        const bool a_in = row0 + ar < p.m && k0 + ac * 8 < p.a_pitch, b_in = k0 + br < p.k && col0 + bc * 8 < p.b_pitch;
        const u16* const from_a = a + static_cast<long long>(row0 + ar) * p.a_pitch + k0 + ac * 8;
        const u16* const from_b = b + static_cast<long long>(k0 + br) * p.b_pitch + col0 + bc * 8;
        cp_async16(strip + swizzle<A_CHUNKS>(ar, ac) * 8, a_in ? from_a : a, a_in);
        cp_async16(strip + B_STRIP + swizzle<B_CHUNKS>(br, bc) * 8, b_in ? from_b : b, b_in);
    }
}

// The warp's rows and columns in the tile.
static __device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / 4 * 64; }
static __device__ __forceinline__ int warp_col() { return threadIdx.x / 32 % 4 * 32; }

// sum += A · B over a strip; sum: [16 rows][8 columns][of this lane].
static __device__ __forceinline__ void multiply_strip(float (&sum)[4][4][4], const u16* strip) {
    const int row = threadIdx.x % 16, chunk = threadIdx.x % 32 / 16;  // what the lane points to
#pragma unroll
    for (int k = 0; k < DEPTH; k += 16) {
        u32 right[4][2];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            u32 r[4];
            ldmatrix_x4_trans(r, strip + B_STRIP + swizzle<B_CHUNKS>(k + row, warp_col() / 8 + 2 * j + chunk) * 8);
            right[2 * j][0] = r[0], right[2 * j][1] = r[1], right[2 * j + 1][0] = r[2], right[2 * j + 1][1] = r[3];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            u32 left[4];
            ldmatrix_x4(left, strip + swizzle<A_CHUNKS>(warp_row() + 16 * i + row, k / 8 + chunk) * 8);
#pragma unroll
            for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(sum[i][j], left, right[j]);
        }
    }
}

static __device__ __forceinline__ void store(const PlanesParams& p, const float (&sum)[4][4][4]) {
    const int row0 = blockIdx.y * 128 + warp_row() + threadIdx.x % 32 / 4;
    const int col0 = blockIdx.x * 128 + warp_col() + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = row0 + 16 * i + e / 2 * 8, col = col0 + 8 * j + e % 2;
                if (row < p.m && col < p.n) p.c[static_cast<long long>(row) * p.ldc + col] = sum[i][j][e];
            }
}
