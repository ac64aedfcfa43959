// The ladder, 2 of 12: neighbours read neighbours.
//
// One change to gemm_1: neighbouring threads take neighbouring columns. In every step half a warp reads 16 neighbours of
// a row of B, which is two pieces of 32 bytes used whole, and one element of A that is handed to all of them. The stores
// to C are neighbours as well. Such accesses are called coalesced.
//
// What limits it: reads from afar. 64 bytes of B, the same for both halves of a warp, and two pieces of A are 128 bytes
// for 32 multiply-adds: 0.5 FLOP per byte. And each multiply-add takes two read instructions.
//
// Exercise: let a whole warp lie in one row of C. What does it read in a step, and what if it lies as 4 × 8? (160 bytes both
// times: one piece of A and four of B, or four and one. Counted in pieces 2 × 16 is best; counted in numbers that are
// used a square would be, and gemm_3, which keeps what it has read, makes one of the whole block.)
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_2, 256, LadderParams) {
    const int row = blockIdx.y * 16 + threadIdx.x / 16;
    const int col = blockIdx.x * 16 + threadIdx.x % 16;
    if (row >= p.m || col >= p.n) return;
    float sum = 0.f;
    for (int k = 0; k < p.k; ++k) sum += p.a[row * p.lda + k] * p.b[k * p.ldb + col];
    p.c[row * p.ldc + col] = sum;
}
