// The ladder, 2 of 8: neighbours read neighbours.
//
// One change to gemm_1: neighbouring threads take neighbouring columns. In every step half a warp reads 16 neighbours of
// a row of B, which is two pieces of 32 bytes used whole, and one element of A that is handed to all of them. The stores
// to C are neighbours as well. Such accesses are called coalesced.
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_2, 256, GemmParams) {
    const int row = blockIdx.y * 16 + threadIdx.x / 16;
    const int col = blockIdx.x * 16 + threadIdx.x % 16;
    if (row >= p.m || col >= p.n) return;
    float sum = 0.f;
    for (int k = 0; k < p.k; ++k) sum += p.a[row * p.lda + k] * p.b[k * p.ldb + col];
    p.c[row * p.ldc + col] = sum;
}
