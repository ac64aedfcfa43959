// What a device can do at most: multiply-adds in registers, products on tensor cores, and copies. Nothing computes with
// these; `elbo bench` measures with them what "percent of the roofline" is a percent of.
//
// Launch:
//   threads = 256, shared = 0, any grid; times are taken over many blocks per multiprocessor
//
// FLOPs per thread, counted by the host:
//   fma_peak          2 · FMA_CHAINS per turn
//   tensor_peak_bf16  2 · 16 · 8 · 16 · MMA_CHAINS per turn and warp
//   tensor_peak_tf32  2 · 16 · 8 · 8 · MMA_CHAINS per turn and warp
#include "params.cuh"
#include "ptx.cuh"

// Independent chains per thread. A multiply-add waits about 4 cycles for the one before it in its chain, and the other
// warps of a scheduler fill some of the time already; more chains than needed cost only registers.
enum { FMA_CHAINS = 16, MMA_CHAINS = 8 };

__device__ __forceinline__ u64 thread_number() { return static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; }

// s ← s · x + y with |x| < 1: stays finite, and no chain can be computed before it has run.
ELBO_KERNEL(fma_peak, 256, RooflineParams) {
    float s[FMA_CHAINS];
#pragma unroll
    for (int c = 0; c < FMA_CHAINS; c++) s[c] = static_cast<float>(c);
#pragma unroll 4
    for (int turn = 0; turn < p.turns; turn++) {
#pragma unroll
        for (int c = 0; c < FMA_CHAINS; c++) s[c] = fmaf(s[c], p.x, p.y);
    }
    float sum = 0.f;
#pragma unroll
    for (int c = 0; c < FMA_CHAINS; c++) sum += s[c];
    p.to[thread_number()] = sum;
}

// Products of one warp with itself over and over. Zeros take as long as other numbers, and draw less power: a device
// that lowers its clock under load reaches less than this.
template <typename Product>
__device__ __forceinline__ void tensor_chains(const RooflineParams& p, Product product) {
    float d[MMA_CHAINS][4] = {};
    const u32 a[4] = {}, b[2] = {};
    for (int turn = 0; turn < p.turns; turn++) {
#pragma unroll
        for (int c = 0; c < MMA_CHAINS; c++) product(d[c], a, b);
    }
    float sum = 0.f;
#pragma unroll
    for (int c = 0; c < MMA_CHAINS; c++) sum += d[c][0] + d[c][1] + d[c][2] + d[c][3];
    p.to[thread_number()] = sum;
}

ELBO_KERNEL(tensor_peak_bf16, 256, RooflineParams) {
    tensor_chains(p, [](float(&d)[4], const u32(&a)[4], const u32(&b)[2]) { mma_m16n8k16_bf16(d, a, b); });
}

ELBO_KERNEL(tensor_peak_tf32, 256, RooflineParams) {
    tensor_chains(p, [](float(&d)[4], const u32(&a)[4], const u32(&b)[2]) { mma_m16n8k8_tf32(d, a, b); });
}

// to = from, 16 bytes a thread and turn, neighbouring threads at neighbouring addresses; `turns` times, past the
// first-level cache, so that small arrays show the second-level one.
ELBO_KERNEL(copy_bandwidth, 256, RooflineParams) {
    const float4* from = reinterpret_cast<const float4*>(p.from);
    float4* to = reinterpret_cast<float4*>(p.to);
    const u64 threads = static_cast<u64>(gridDim.x) * blockDim.x;
    for (int turn = 0; turn < p.turns; turn++) {
#pragma unroll 4
        for (u64 i = thread_number(); i < p.len / 4; i += threads) to[i] = __ldcg(from + i);
    }
}
