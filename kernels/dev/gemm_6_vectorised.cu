// The ladder, 6 of 12: four numbers at a time, and no two threads at one bank.
//
// Memory can be read 16 bytes at a time, by one instruction instead of four. So:
//
//   * The copies take a float4 each. That of A is turned on the way: A lies in shared memory as [8 of k][128 rows], so that
//     the eight numbers a thread needs for one k are neighbours.
//   * From shared memory a thread reads float4s: 4 reads for 64 multiply-adds instead of 16 (10 where the compiler joins
//     those of B, which were neighbours before; nvcc 13 does).
//   * Shared memory has 32 banks of 4 bytes, and threads of a warp that want different words of one bank have to wait for
//     each other. So a thread takes two groups of four columns, 32 apart, instead of eight in a row, and a warp stands as
//     4 × 8 threads: its reads of B are 8 neighbouring float4s, all banks once. Four idle floats after each row spread the
//     stores that turn A over the banks.
//
// What limits it: waiting. By count it is arithmetic: 16 cycles for the 64 multiply-adds of a warp, four or a few more for
// the four reads. But between two barriers a block waits for memory, several hundred cycles, for every eight steps of k, in
// which it has 128 · 128 · 8 multiply-adds to do: 1024 cycles (sm_75 and sm_80: 2048). A second block on the multiprocessor
// fills some of the pauses.
//
// Wants m, n, k and the leading dimensions in multiples of 4 and aligned pointers: a float4 is then inside or outside.
//
// Exercise: without the four idle floats, at how many banks do the stores that turn A meet? (A warp stores 16 rows at two
// k that are four apart, 4 · 128 words: all 32 lanes at 16 banks, two by two. With them, 4 · 132 words are 16 banks on.)
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_6, 256, LadderParams) {
    constexpr int PITCH = 128 + 4;
    ELBO_SHARED(float, shared);
    float* const a = shared;              // [8 of k][128 rows]
    float* const b = shared + 8 * PITCH;  // [8 of k][128 columns]
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int y = warp / 2 * 32 + lane / 8 * 4, x = warp % 2 * 64 + lane % 8 * 4;  // first rows and columns in the tile
    const float4 zero = make_float4(0.f, 0.f, 0.f, 0.f);
    float sum[8][8] = {};
    for (int k0 = 0; k0 < p.k; k0 += 8) {
        const int ar = threadIdx.x / 2, ak = threadIdx.x % 2 * 4, br = threadIdx.x / 32, bc = threadIdx.x % 32 * 4;
        const bool a_in = row0 + ar < p.m && k0 + ak < p.k, b_in = k0 + br < p.k && col0 + bc < p.n;
        const float4 u = a_in ? *reinterpret_cast<const float4*>(p.a + (row0 + ar) * p.lda + k0 + ak) : zero;
        const float4 v = b_in ? *reinterpret_cast<const float4*>(p.b + (k0 + br) * p.ldb + col0 + bc) : zero;
        a[(ak + 0) * PITCH + ar] = u.x;
        a[(ak + 1) * PITCH + ar] = u.y;
        a[(ak + 2) * PITCH + ar] = u.z;
        a[(ak + 3) * PITCH + ar] = u.w;
        *reinterpret_cast<float4*>(b + br * PITCH + bc) = v;
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            float4 u4[2], v4[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                u4[h] = *reinterpret_cast<const float4*>(a + k * PITCH + y + 16 * h);
                v4[h] = *reinterpret_cast<const float4*>(b + k * PITCH + x + 32 * h);
            }
            const float u[8] = {u4[0].x, u4[0].y, u4[0].z, u4[0].w, u4[1].x, u4[1].y, u4[1].z, u4[1].w};
            const float v[8] = {v4[0].x, v4[0].y, v4[0].z, v4[0].w, v4[1].x, v4[1].y, v4[1].z, v4[1].w};
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) sum[i][j] += u[i] * v[j];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = row0 + y + i / 4 * 16 + i % 4, col = col0 + x + 32 * h;
            const float* s = &sum[i][4 * h];
            if (row < p.m && col < p.n) {
                *reinterpret_cast<float4*>(p.c + row * p.ldc + col) = make_float4(s[0], s[1], s[2], s[3]);
            }
        }
}
