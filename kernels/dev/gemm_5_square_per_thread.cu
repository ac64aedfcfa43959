// The ladder, 5 of 12: a square of sums per thread.
//
// A column of eight sums uses a number of B eight times, but a number of A once. A square uses both: for each k a thread
// reads 8 numbers of A and 8 of B into registers and multiplies each with each, 16 reads for 64 multiply-adds. By that count
// arithmetic could be the limit. It is not yet: 16 threads side by side read B 8 numbers apart, four different words in each
// of four banks, which take turns (gemm_6 says what a bank is). A block of 256 threads computes 128 × 128 elements; every
// thread copies four numbers of A and four of B in each step.
//
// What limits it: banks. For each k the eight reads of B take four cycles each; those of A two, since the two rows of
// threads in a warp read A 64 words apart, at one bank: 48 cycles, for 64 multiply-adds of a warp, which take 16 (sm_75 and
// sm_80: 32). nvcc 13 joins four reads of B into one of 16 bytes, of which each takes four cycles too: 24 cycles then.
//
// Exercise: which of the two is cured by an idle float after each row of the strip, and which is not?
// (A's, with 9 floats to a row. B's words are of one row: the threads' columns have to change, which gemm_6 does.)
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_5, 256, LadderParams) {
    ELBO_SHARED(float, shared);
    float* const a = shared;            // [128 rows][8 of k]
    float* const b = shared + 128 * 8;  // [8 of k][128 columns]
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
    const int x = threadIdx.x % 16 * 8, y = threadIdx.x / 16 * 8;  // the thread's square in the tile
    float sum[8][8] = {};
    for (int k0 = 0; k0 < p.k; k0 += 8) {
        for (int e = threadIdx.x; e < 128 * 8; e += 256) {
            const int ar = e / 8, ak = e % 8, br = e / 128, bc = e % 128;
            a[e] = row0 + ar < p.m && k0 + ak < p.k ? p.a[(row0 + ar) * p.lda + k0 + ak] : 0.f;
            b[e] = k0 + br < p.k && col0 + bc < p.n ? p.b[(k0 + br) * p.ldb + col0 + bc] : 0.f;
        }
        __syncthreads();
        for (int k = 0; k < 8; ++k) {
            float u[8], v[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) u[i] = a[(y + i) * 8 + k], v[i] = b[k * 128 + x + i];
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
        for (int j = 0; j < 8; ++j) {
            const int row = row0 + y + i, col = col0 + x + j;
            if (row < p.m && col < p.n) p.c[row * p.ldc + col] = sum[i][j];
        }
}
