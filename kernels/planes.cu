// Cuts a matrix into planes of bf16: x₀ = bf16(x), x₁ = bf16(x − x₀), x₂ = bf16(x − x₀ − x₁). The subtractions are exact. See
// planes.cuh for what a plane is; gemm_planes.cu multiplies those of plans, which have one, kernels/dev those of the ladder, which have
// up to three.
//
// Launch:
//   threads = 256, shared = 0, grid = ⌈rows · pitch / 512⌉
#include "planes.cuh"

// A thread makes two neighbours into a word of each plane.
ELBO_KERNEL(make_planes, 256, MakePlanesParams) {
    begin_launch();
    const u32 row_words = p.pitch / 2, words = p.rows * row_words;  // of a plane
    const u32 at = blockIdx.x * 256 + threadIdx.x;
    if (at >= words) return;
    const u32 row = at / row_words;
    const int col = static_cast<int>(at - row * row_words) * 2;
    const float* const from = p.from + static_cast<long long>(row) * p.ld + col;
    float first = col < p.cols ? from[0] : 0.f, second = col + 1 < p.cols ? from[1] : 0.f;
    u32* const to = reinterpret_cast<u32*>(static_cast<u16*>(p.to));
    for (int plane = 0; plane < p.planes; ++plane) {
        const u32 word = pack_bf16(first, second);
        to[static_cast<long long>(plane) * words + at] = word;
        first = __fsub_rn(first, bf16_to_float(static_cast<u16>(word)));
        second = __fsub_rn(second, bf16_to_float(static_cast<u16>(word >> 16)));
    }
}
