// The ladder, 4 of 12: a column of eight sums per thread.
//
// Now shared memory is the limit: gemm_3 reads two numbers from it for every multiply-add, and a multiprocessor does four
// times as many multiply-adds as it reads numbers (128 and 32 per cycle; on sm_75 and sm_80 64 and 32). So a thread keeps
// eight sums, one below the other. It reads a number of B once for all eight: nine reads for eight multiply-adds. The
// tile of a block grows to 64 × 64, and with it the use of everything that is copied. k advances in steps of 8.
//
// What limits it: shared memory still. Nine reads of a warp take nine cycles, the eight multiply-adds two (sm_75 and
// sm_80: four). Where the compiler joins the reads of A for neighbouring k, of which four fit one of 16 bytes, four steps of k
// take 4 + 8 cycles for 8 of arithmetic, and only on sm_75 and sm_80, with 16, is arithmetic the limit.
//
// Exercise: with 16 sums in a thread, how many reads for a multiply-add? Is there a number of sums for which it is below
// one? (17/16. No: the number of A is used once, whatever the column's height.)
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_4, 512, LadderParams) {
    ELBO_SHARED(float, shared);
    float* const a = shared;           // [64 rows][8 of k]
    float* const b = shared + 64 * 8;  // [8 of k][64 columns]
    const int row0 = blockIdx.y * 64, col0 = blockIdx.x * 64;
    const int x = threadIdx.x % 64, y = threadIdx.x / 64 * 8;  // the thread's column and first row in the tile
    float sum[8] = {};
    for (int k0 = 0; k0 < p.k; k0 += 8) {
        const int ar = threadIdx.x / 8, ak = threadIdx.x % 8;  // what the thread copies
        const int br = threadIdx.x / 64, bc = threadIdx.x % 64;
        a[ar * 8 + ak] = row0 + ar < p.m && k0 + ak < p.k ? p.a[(row0 + ar) * p.lda + k0 + ak] : 0.f;
        b[br * 64 + bc] = k0 + br < p.k && col0 + bc < p.n ? p.b[(k0 + br) * p.ldb + col0 + bc] : 0.f;
        __syncthreads();
        for (int k = 0; k < 8; ++k) {
            const float v = b[k * 64 + x];
#pragma unroll
            for (int i = 0; i < 8; ++i) sum[i] += a[(y + i) * 8 + k] * v;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if (row0 + y + i < p.m && col0 + x < p.n) p.c[(row0 + y + i) * p.ldc + col0 + x] = sum[i];
    }
}
