// The ladder, 1 of 12: the definition.
//
//   C[i, j] = Σ_p A[i, p] · B[p, j]        A: [m, k], B: [k, n], C: [m, n], row-major
//
// gemm_1 … gemm_11 compute the same product, each one idea on from the one before. The kernels that are used have the
// pipeline of gemm_7 and the instruction of gemm_8 (../gemm_tile.cuh), and end as gemm_12 does. Up to gemm_8 all take
// LadderParams (../params.cuh). The launch is in LADDER, src/engine/steps/gemm/rungs.rs. What limits a rung is counted from
// its text and from data sheets; nothing was measured on a GPU.
//
// Here every thread computes one element of C. The trouble is which: the 32 threads of a warp run together, and here
// neighbours take neighbouring rows, so that a warp covers 16 rows and 2 columns of C. In every step it reads 16
// addresses of A that lie lda apart, each in a piece of memory of its own, and uses 4 of the 32 bytes that come with
// each; of B it reads 2 neighbours. The stores to C use 8 of every 32 bytes.
//
// What limits it: pieces of memory. 17 of them, 544 bytes, for 32 multiply-adds: 0.12 FLOP per byte, if no
// cache helps.
//
// Exercise: a block of 32 × 8 threads with row = threadIdx.x % 32 makes a warp 32 rows and one column. How many pieces
// does a step take then, and how much of each store is used? (33; 4 of 32 bytes.)
#include "../params.cuh"

ELBO_KERNEL(dev_gemm_1, 256, LadderParams) {
    const int row = blockIdx.y * 16 + threadIdx.x % 16;
    const int col = blockIdx.x * 16 + threadIdx.x / 16;
    if (row >= p.m || col >= p.n) return;
    float sum = 0.f;
    for (int k = 0; k < p.k; ++k) sum += p.a[row * p.lda + k] * p.b[k * p.ldb + col];
    p.c[row * p.ldc + col] = sum;
}
