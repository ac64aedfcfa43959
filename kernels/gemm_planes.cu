// The matrix product of planes of bf16, for large products. See gemm_planes.cuh, and src/engine/steps/gemm/cuda.rs for which one is taken
// when. Before sm_80 these kernels stop at once.
#include "gemm_planes.cuh"

//                                rows  cols  warp  slices depth stages
using PLANES_128x128 = PlaneTile<128, 128, 64, 64, 1, 32, 4>;
using PLANES_256x128 = PlaneTile<256, 128, 64, 64, 1, 32, 4>;

ELBO_KERNEL_RESIDENT(gemm_planes_128x128, 128, 2, GemmParams) {
    ELBO_SHARED(float, shared);
    multiply_planes<PLANES_128x128>(p, shared);
}

ELBO_KERNEL_RESIDENT(gemm_planes_256x128, 256, 1, GemmParams) {
    ELBO_SHARED(float, shared);
    multiply_planes<PLANES_256x128>(p, shared);
}
