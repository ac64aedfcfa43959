// The matrix product in f32: kernels for large, middling and little work. See gemm_tile.cuh for the reading order and
// src/engine/steps/gemm/cuda.rs for which one is taken when.
#include "gemm_simt.cuh"

//                            layout  rows  cols  warp  slices  depth  stages
using F32_128x128 = Tile<Padded, 128, 128, 32, 64, 1, 8, 4>;
using F32_64x64 = Tile<Padded, 64, 64, 32, 32, 1, 16, 4>;
using F32_64x32 = Tile<Padded, 64, 32, 32, 32, 4, 32, 3>;
using F32_32x32 = Tile<Padded, 32, 32, 16, 32, 4, 32, 4>;  // with the bits of 64 × 32

ELBO_KERNEL_RESIDENT(gemm_f32_128x128, 256, 2, GemmParams) {
    ELBO_SHARED(float, shared);
    multiply_matrices<F32_128x128, SimtSums<F32_128x128>>(p, shared);
}

ELBO_KERNEL_RESIDENT(gemm_f32_64x64, 128, 4, GemmParams) {
    ELBO_SHARED(float, shared);
    multiply_matrices<F32_64x64, SimtSums<F32_64x64>>(p, shared);
}

ELBO_KERNEL_RESIDENT(gemm_f32_64x32, 256, 2, GemmParams) {
    ELBO_SHARED(float, shared);
    multiply_matrices<F32_64x32, SimtSums<F32_64x32>>(p, shared);
}

ELBO_KERNEL_RESIDENT(gemm_f32_32x32, 256, 2, GemmParams) {
    ELBO_SHARED(float, shared);
    multiply_matrices<F32_32x32, SimtSums<F32_32x32>>(p, shared);
}
