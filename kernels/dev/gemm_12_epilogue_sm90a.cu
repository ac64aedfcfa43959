// The ladder, 12 of 12: what follows a product is done before it is stored.
//
// A layer of a network is relu(A·B + bias). The sums of gemm_11 are in registers when they are complete, and a kernel of its
// own for bias and activation would bring all of C from memory once more and back: 8 bytes moved for two operations. Here
// they are done on the way out: each thread adds the bias of its columns, takes the larger of the sum and zero, and stores
// that.
//
// dev_epilogue is that kernel of its own. The ladder runs gemm_11 and then dev_epilogue as well and tells that time beside this
// rung's, for the same result, bit by bit.
//
// What limits it: what limits gemm_11. The bias is 512 bytes for a tile of 64 KiB, and comes from the first-level cache
// after the first row. What is saved (estimated; nothing was measured on a GPU): 8·m·n bytes, for n = m = 8192 half a
// gigabyte, 0.12 ms at 4.3 TB/s, nine tenths of what the data sheet of an H200 says; gemm_11's own product of k = 8192 takes
// 3.1 ms at its limit, one of k = 400 a twentieth of it, and there it counts.
//
// Error as for gemm_11. Takes any sizes.
//
// Exercise: dev_epilogue reads C from memory if C is larger than the second-level cache, 50 MiB on an H200. Up to which m =
// n does the separate pass find C there? (4 m² ≤ 50 · 2²⁰: 3620. It still costs a launch.)
#include "../scalar.cuh"
#include "warpgroup.cuh"

// The operations of the engine's own epilogue of this form (../epilogue.cuh, BIAS_RELU).
static __device__ __forceinline__ float bias_relu(float sum, float bias) { return scalar::relu(f32(sum) + f32(bias)).v; }

ELBO_KERNEL_RESIDENT(dev_gemm_12, 288, 2, TilesParams) {
    ELBO_SHARED(unsigned char, shared);
    multiply_tiles(p, shared, [&p](float sum, int col) { return bias_relu(sum, p.bias[col]); });
}

// One element per thread.
ELBO_KERNEL(dev_epilogue, 256, TilesParams) {
    const long long at = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x, row = at / p.n;
    const int col = static_cast<int>(at % p.n);
    if (row >= p.m) return;
    float* const c = p.c + row * p.ldc + col;
    *c = bias_relu(*c, p.bias[col]);
}
