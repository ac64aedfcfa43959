// The matrix product on tensor cores: four precisions, each for large, middling and little work. See gemm_tile.cuh for
// the reading order and src/engine/steps/gemm/cuda.rs for which one is taken when. Before sm_80 these kernels stop at once.
#include "gemm_tensor.cuh"

//                                    layout    rows  cols  warp  slices depth stages
using TENSOR_128x128 = Tile<Swizzled, 128, 128, 64, 64, 1, 16, 3>;
using TENSOR_64x64 = Tile<Swizzled, 64, 64, 32, 32, 1, 16, 4>;
using TENSOR_32x32 = Tile<Swizzled, 32, 32, 32, 32, 4, 64, 3>;
// With three parts of every number the registers hold half as many sums.
using TENSOR_128x128_SPLIT = Tile<Swizzled, 128, 128, 64, 32, 1, 16, 3>;

#define TENSOR_KERNEL(name, threads, T, precision)                             \
    ELBO_KERNEL_RESIDENT(name, threads, 1, GemmParams) {                       \
        ELBO_SHARED(float, shared);                                            \
        static_assert(T::THREADS == threads, "launch bounds");                 \
        multiply_matrices<T, TensorSums<T, precision>>(p, shared);             \
    }

TENSOR_KERNEL(gemm_tf32_128x128, 128, TENSOR_128x128, Tf32)
TENSOR_KERNEL(gemm_tf32_64x64, 128, TENSOR_64x64, Tf32)
TENSOR_KERNEL(gemm_tf32_32x32, 128, TENSOR_32x32, Tf32)

TENSOR_KERNEL(gemm_bf16_128x128, 128, TENSOR_128x128, Bf16<1>)
TENSOR_KERNEL(gemm_bf16_64x64, 128, TENSOR_64x64, Bf16<1>)
TENSOR_KERNEL(gemm_bf16_32x32, 128, TENSOR_32x32, Bf16<1>)

TENSOR_KERNEL(gemm_bf16x3_128x128, 256, TENSOR_128x128_SPLIT, Bf16<2>)
TENSOR_KERNEL(gemm_bf16x3_64x64, 128, TENSOR_64x64, Bf16<2>)
TENSOR_KERNEL(gemm_bf16x3_32x32, 128, TENSOR_32x32, Bf16<2>)

TENSOR_KERNEL(gemm_bf16x6_128x128, 256, TENSOR_128x128_SPLIT, Bf16<3>)
TENSOR_KERNEL(gemm_bf16x6_64x64, 128, TENSOR_64x64, Bf16<3>)
TENSOR_KERNEL(gemm_bf16x6_32x32, 128, TENSOR_32x32, Bf16<3>)
