// What rungs 11 and 12 of the ladder share: the way of planes of bf16 to the tensor cores by copies of tiles and products of
// warpgroups. To be read with gemm_11_wgmma_sm90a.cu.
//
// A block computes 128 × 128 elements of C. Its nine warps have two trades:
//
//   warps 0–3, 4–7     two warpgroups that multiply: rows 0–63 and 64–127 of the tile
//   warp 8, one thread starts the copies
//
//   strip s, 64 of k, in stage s mod 3 of shared memory
//
//        thread 256                                     warps 0–7
//        wait until the stage is empty    ◄───────────  eight arrivals: one by each warp, when its products have read it
//        announce 32 KiB, start 3 copies
//                 … the copies run …      ───────────►  wait until all bytes are there: full
//                                                       4 products of 16 of k each
//
// ---- A stage ----
//
//   A   [128 rows][64 of k]                16 KiB, one copy       a row is 128 bytes
//   B   2 × [64 of k][64 columns]          8 KiB each, two copies: the second has the tile's columns 64–127
//
// Both are swizzled by the copies as the products want them: chunk c (8 numbers) of row r lies at place c xor r mod 8, the
// same swizzle as in ../planes.cuh, with rows of eight chunks. So one chunk of eight rows lies at eight groups of four banks;
// the groups of chunks 0 to 7:
//
//        row 0     0 1 2 3 4 5 6 7         row 4     4 5 6 7 0 1 2 3
//        row 1     1 0 3 2 5 4 7 6         row 5     5 4 7 6 1 0 3 2
//        row 2     2 3 0 1 6 7 4 5         row 6     6 7 4 5 2 3 0 1
//        row 3     3 2 1 0 7 6 5 4         row 7     7 6 5 4 3 2 1 0
//
// Neither matrix is turned around. A's rows run along k, and 16 further of k are 32 bytes further. B's rows run along the
// columns, and 16 further of k are 16 rows, 2048 bytes, further; its columns from 64 on are 8 KiB further ("leading").
#pragma once
#include "../hopper.cuh"

// src/engine/device/cuda/tiles.rs has the twin of this struct.
struct TilesParams {
    TensorMap a;        // plane [m, k], box of 128 rows and 64 of k
    TensorMap b;        // plane [k, n], box of 64 of k and 64 columns
    float* c;           // [m, n], rows ldc apart
    const float* bias;  // [n], or null where nothing is added
    int m, n, k, ldc;
    int _pad[8];
};
static_assert(sizeof(TilesParams) == 320);

static constexpr int DEPTH = 64, STAGES = 3;  // k of a strip; strips in shared memory at a time
static constexpr int A_BYTES = 128 * DEPTH * 2, B_BYTES = DEPTH * 64 * 2, STAGE = A_BYTES + 2 * B_BYTES;
static constexpr u32 GROUP = 1024;  // eight rows of 128 bytes
static constexpr int CONSUMERS = 256;

// The block's shared memory, at the next multiple of 1024: 3 stages, and two barriers for each.
struct Ring {
    unsigned char* stages;
    u64 *full, *empty;

    __device__ __forceinline__ explicit Ring(unsigned char* shared)
        : stages(shared + (GROUP - shared_address(shared) % GROUP) % GROUP),
          full(reinterpret_cast<u64*>(stages + STAGES * STAGE)),
          empty(full + STAGES) {}

    __device__ __forceinline__ void make_barriers() const {
        for (int i = 0; i < STAGES; ++i) {
            mbarrier_init(full + i, 1);
            mbarrier_init(empty + i, CONSUMERS / 32);
        }
        fence_mbarrier_init();
    }
};

// The thread that copies.
static __device__ __forceinline__ void produce(const TilesParams& p, const Ring& ring, int strips) {
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
    for (int s = 0; s < strips; ++s) {
        const int i = s % STAGES, turn = s / STAGES;
        unsigned char* const stage = ring.stages + i * STAGE;
        mbarrier_wait(ring.empty + i, turn % 2 ^ 1);  // in the first turn there is nothing to wait for
        mbarrier_arrive_expect_tx(ring.full + i, STAGE);
        tma_load_2d(stage, p.a, ring.full + i, s * DEPTH, row0);
        tma_load_2d(stage + A_BYTES, p.b, ring.full + i, col0, s * DEPTH);
        tma_load_2d(stage + A_BYTES + B_BYTES, p.b, ring.full + i, col0 + 64, s * DEPTH);
    }
}

// A warpgroup: sum += its 64 rows of A · B. While the products of a strip run, those of the next are started.
static __device__ __forceinline__ void consume(const Ring& ring, int strips, float (&sum)[64]) {
    const int warpgroup = threadIdx.x / 128;
    const bool speaks_for_warp = threadIdx.x % 32 == 0;
    for (int s = 0; s < strips; ++s) {
        const int i = s % STAGES, turn = s / STAGES;
        const unsigned char* const a = ring.stages + i * STAGE + warpgroup * 64 * 128;
        const unsigned char* const b = ring.stages + i * STAGE + A_BYTES;
        mbarrier_wait(ring.full + i, turn % 2);
        wgmma_fence(sum);
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) {
            wgmma_m64n128k16_bf16(sum, wgmma_operand(a + k * 2, 16, GROUP), wgmma_operand(b + k * 128, B_BYTES, GROUP));
        }
        wgmma_commit();
        wgmma_wait<1>(sum);
        if (s > 0 && speaks_for_warp) mbarrier_arrive(ring.empty + (s - 1) % STAGES);
    }
    wgmma_wait<0>(sum);
}

// C = finish(sum, column), for the elements of this thread.
template <class Finish>
static __device__ __forceinline__ void store(const TilesParams& p, const float (&sum)[64], Finish finish) {
    const int lane = threadIdx.x % 32, row0 = blockIdx.y * 128 + threadIdx.x / 32 * 16 + lane / 4;
    const int col0 = blockIdx.x * 128 + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < 16; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int row = row0 + e / 2 * 8, col = col0 + 8 * j + e % 2;
            if (row < p.m && col < p.n) p.c[static_cast<long long>(row) * p.ldc + col] = finish(sum[4 * j + e], col);
        }
}

// The kernel of both rungs.
template <class Finish>
static __device__ __forceinline__ void multiply_tiles(const TilesParams& p, unsigned char* shared, Finish finish) {
    const Ring ring(shared);
    const int strips = (p.k + DEPTH - 1) / DEPTH;
    if (threadIdx.x == 0) ring.make_barriers();
    __syncthreads();
    if (threadIdx.x >= CONSUMERS) {
        if (threadIdx.x == CONSUMERS) produce(p, ring, strips);
        return;
    }
    float sum[64] = {};
    consume(ring, strips, sum);
    store(p, sum, finish);
}
