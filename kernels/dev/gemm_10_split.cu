// The ladder, 10 of 12: as accurate as f32, on tensor cores.
//
// One bf16 has 8 bits of a number, three have its 24: x = x₀ + x₁ + x₂ with x₀ = bf16(x), x₁ = bf16(x − x₀) and
// x₂ = bf16(x − x₀ − x₁), exactly, and xᵢ about 2⁻⁸ⁱ of x. So a product of matrices is a sum of products of planes, and
// gemm_9 knows how to compute those. Its k becomes longer, no more: each strip of k comes once for each pair of planes.
//
//   ×3, two planes each      a₁b₀ + a₀b₁ + a₀b₀                                error about 2⁻¹⁶
//   ×6, three planes each    a₂b₀ + a₁b₁ + a₀b₂ + a₁b₀ + a₀b₁ + a₀b₀           that of f32; the rest is below 2⁻²³
//
// The order of the additions is the one written, per strip of 32 of k, and the strip's sum is added to the total. The
// small products come first: a tensor core cuts an addend off where the largest one's last bit is, so that a₂b₀ added to
// the sum of a₀b₀ would keep 8 of its bits; among their like the small ones keep theirs, and are cut off once. And the
// total gets an ordinary, rounded addition: cutting it off all along k would be a bias. That takes 64 registers more, and
// therefore one block, not two, is on a multiprocessor: two would need more than the 65536 registers that it has.
//
// What limits it (estimated; nothing was measured on a GPU). For 16 of k everything of gemm_9 comes six times: 1536
// cycles of tensor cores (sm_80; 1180 on sm_90), 1536 of shared memory, and 48 KiB from the second-level cache, 10.7 FLOP
// per byte. On an H200 that cache allows 59 TFLOP/s, where tensor cores would do 107 and the f32 units of rung 7 do 67 at
// best. So there this rung is worth the trouble only after the exercise. (../gemm_tensor.cuh reads f32, 16 KiB, and splits
// it in registers.)
//
// Numbers from 3.396·10³⁸ on round to infinity, and what is infinite gives NaN, since ∞ − ∞ has no parts; digits below
// 2⁻¹³³ are lost. ../gemm_tensor.cuh says how to keep infinities. Takes any sizes, and sm_80.
//
// Exercise: copy all planes of a strip of 16 of k together, and multiply all pairs while they are there. How many bytes
// come from the second-level cache per 16 of k for ×6, and how many strips fit 48 KiB? (24 KiB, half as many; two.)
#include "planes.cuh"

// COUNT products of planes. The digits of A and B at one place are the planes of a product; the first are added first.
template <int COUNT_, u32 A, u32 B>
struct Products {
    static constexpr int COUNT = COUNT_;
    static __device__ __forceinline__ int a(int i) { return A >> 4 * (COUNT - 1 - i) & 15; }
    static __device__ __forceinline__ int b(int i) { return B >> 4 * (COUNT - 1 - i) & 15; }
};
using Three = Products<3, 0x100, 0x010>;
using Six = Products<6, 0x210100, 0x012010>;

template <class P>
static __device__ __forceinline__ void multiply_planes(const PlanesParams& p, u16* shared) {
    const int strips = (p.k + DEPTH - 1) / DEPTH * P::COUNT;  // strip s: steps s / COUNT · 32 …, product s mod COUNT
    const long long a_plane = static_cast<long long>(p.m) * p.a_pitch, b_plane = static_cast<long long>(p.k) * p.b_pitch;
    const auto start = [&](int s) {
        if (s < strips) {
            const u16 *const a = p.a + P::a(s % P::COUNT) * a_plane, *const b = p.b + P::b(s % P::COUNT) * b_plane;
            start_copies(p, a, b, shared + s % STAGES * STRIP, s / P::COUNT * DEPTH);
        }
        cp_async_commit();
    };
    float total[4][4][4] = {};
    for (int s = 0; s < STAGES - 1; ++s) start(s);
    for (int s = 0; s < strips;) {
        float sum[4][4][4] = {};
#pragma unroll 1
        for (int product = 0; product < P::COUNT; ++product, ++s) {
            cp_async_wait<STAGES - 2>();
            __syncthreads();
            start(s + STAGES - 1);
            multiply_strip(sum, shared + s % STAGES * STRIP);
        }
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) total[i][j][e] = __fadd_rn(total[i][j][e], sum[i][j][e]);
    }
    store(p, total);
}

ELBO_KERNEL(dev_gemm_10_x3, 256, PlanesParams) {
    ELBO_SHARED(u16, shared);
    multiply_planes<Three>(p, shared);
}

ELBO_KERNEL(dev_gemm_10_x6, 256, PlanesParams) {
    ELBO_SHARED(u16, shared);
    multiply_planes<Six>(p, shared);
}
