// The ladder, 3 of 12: read once, use 16 times.
//
// gemm_2 reads two numbers from memory for every multiply-add. But a block of 16 × 16 elements of C needs only 16 rows of
// A and 16 columns of B. So the block copies a square of each into shared memory, together, every thread one element of
// each, multiplies the squares from there, and goes on to the next two. A thread's reads from memory fall to a
// sixteenth, and the bytes, of which gemm_2 shared some already, to an eighth: 4 FLOP per byte.
//
// The barriers: nobody may read a square before all of it is there, nor overwrite it before all are done with it.
//
// What limits it: shared memory, which gives 32 numbers a cycle, where 128 multiply-adds could be done (sm_75 and sm_80: 64). A
// warp's multiply-add takes two reads of a cycle each, in which eight (four) of them could be done: an eighth of what a
// multiprocessor can do, a fifth where the compiler joins four reads of A. On an H200 that is 8 or 13 of 67 TFLOP/s; 4 FLOP per
// byte from a second-level cache of 5.5 TB/s would allow 22.
//
// Exercise: make it squares of 32 × 32 and 1024 threads. What becomes less, and what does not? (Reads from afar are
// halved; reads from shared memory stay two for a multiply-add.)
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_3, 256, LadderParams) {
    ELBO_SHARED(float, shared);
    float* const a = shared;        // [16 rows][16 of k]
    float* const b = shared + 256;  // [16 of k][16 columns]
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int row = blockIdx.y * 16 + y, col = blockIdx.x * 16 + x;
    float sum = 0.f;
    for (int k0 = 0; k0 < p.k; k0 += 16) {
        a[y * 16 + x] = row < p.m && k0 + x < p.k ? p.a[row * p.lda + k0 + x] : 0.f;
        b[y * 16 + x] = col < p.n && k0 + y < p.k ? p.b[(k0 + y) * p.ldb + col] : 0.f;
        __syncthreads();
        for (int k = 0; k < 16; ++k) sum += a[y * 16 + k] * b[k * 16 + x];
        __syncthreads();
    }
    if (row < p.m && col < p.n) p.c[row * p.ldc + col] = sum;
}
