// Random numbers that are a pure function of (seed, step, stream, element index): the twin of src/engine/rng.rs, bit for bit.
//
// That file says in four steps what is computed; the functions here have the same names. Philox4x32-10 gives four
// words per block, elements 4b … 4b+3 come from block b.
#pragma once
#include "math.cuh"
#include "quad.cuh"

constexpr u32 PHILOX_MULTIPLY_0 = 0xd2511f53, PHILOX_MULTIPLY_1 = 0xcd9e8d57;
constexpr u32 PHILOX_KEY_STEP_0 = 0x9e3779b9, PHILOX_KEY_STEP_1 = 0xbb67ae85;

// Four words from a counter and the seed as key (low half, high half).
__device__ __forceinline__ uint4 philox4x32_10(uint4 c, u64 seed) {
    u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const u64 a = static_cast<u64>(c.x) * PHILOX_MULTIPLY_0;
        const u64 b = static_cast<u64>(c.z) * PHILOX_MULTIPLY_1;
        c = make_uint4(static_cast<u32>(b >> 32) ^ c.y ^ k0, static_cast<u32>(b),
                       static_cast<u32>(a >> 32) ^ c.w ^ k1, static_cast<u32>(a));
        k0 += PHILOX_KEY_STEP_0;
        k1 += PHILOX_KEY_STEP_1;
    }
    return c;
}

constexpr float PHILOX_UNIT = 1.0f / 16777216.0f;  // 2⁻²⁴

// ⌊word/2⁸⌋·2⁻²⁴ in [0, 1).
__device__ __forceinline__ f32 unit(u32 word) { return math::from_int(static_cast<int>(word >> 8)) * PHILOX_UNIT; }

// ln v for v in (0, 1] that is a multiple of 2⁻²⁴.
__device__ __forceinline__ f32 unit_log(f32 v) { return math::log_normal(v); }

// (sin πx, cos πx) of x = j·2⁻²³ for j < 2²⁴.
__device__ __forceinline__ void sincospi(u32 j, f32& sine, f32& cosine) {
    const u32 q = (j + (1u << 21)) >> 22;
    const f32 t = math::from_int(static_cast<int>(j - (q << 22))) * (1.0f / 4194304.0f);
    const f32 z = t * t;
    f32 s = -4.6859714e-3f;
    s = s * z + 7.9712525e-2f;
    s = s * z + -6.4596665e-1f;
    s = s * z + 1.5707964f;
    s = s * t;
    f32 c = 8.9447346e-4f;
    c = c * z + -2.0855594e-2f;
    c = c * z + 2.5366855e-1f;
    c = c * z + -1.2337005f;
    c = c * z + 1.0f;
    const bool swap = q & 1;
    sine = math::from_bits(math::bits(math::select(swap, c, s)) ^ ((q & 2) << 30));
    cosine = math::from_bits(math::bits(math::select(swap, s, c)) ^ (((q + 1) & 2) << 30));
}

// Two independent normal numbers from two words.
__device__ __forceinline__ float2 box_muller(u32 w0, u32 w1) {
    const f32 v = math::from_int(static_cast<int>(0x01000000u - (w0 >> 8))) * PHILOX_UNIT;
    const f32 radius = math::sqrt(f32(-2.0f) * unit_log(v));
    f32 s, c;
    sincospi(w1 >> 8, s, c);
    return make_float2((radius * c).v, (radius * s).v);
}

// Which random numbers.
struct Draw {
    u64 seed;
    u32 step, stream;
};

// Elements 4·block … 4·block + 3, normal or uniform.
__device__ __forceinline__ float4 draw_block(Draw draw, bool normal, u32 block) {
    const uint4 w = philox4x32_10(make_uint4(block, draw.step, draw.stream, 0), draw.seed);
    if (!normal) return make_float4(unit(w.x).v, unit(w.y).v, unit(w.z).v, unit(w.w).v);
    const float2 a = box_muller(w.x, w.y), b = box_muller(w.z, w.w);
    return make_float4(a.x, a.y, b.x, b.y);
}

// Elements first … first + n − 1 for n ≤ 4, in the first n lanes: they lie in one block or in two.
__device__ __forceinline__ float4 draw_quad(Draw draw, bool normal, u64 first, int n) {
    const u32 skip = static_cast<u32>(first) & 3;
    const u32 block = static_cast<u32>(first >> 2);
    const u32 last = block + (skip + n > 4 ? 1 : 0);
    float4 low = splat(0.0f), high = splat(0.0f);
    // Not unrolled: the second block is rare (rows that are no multiple of four) and the code is long.
#pragma unroll 1
    for (u32 b = block; b != last + 1; b++) {
        const float4 v = draw_block(draw, normal, b);
        if (b == block) low = v;
        else high = v;
    }
    // The eight values from `low` to `high`, moved down by `skip`: by one, then by two.
    if (skip & 1) {
        low = make_float4(low.y, low.z, low.w, high.x);
        high = make_float4(high.y, high.z, high.w, 0.0f);
    }
    if (skip & 2) low = make_float4(low.z, low.w, high.x, high.y);
    return low;
}

// A permutation of 0..n that is computed, not stored: see Permutation in src/engine/rng.rs.
struct Permutation {
    u32 n, low_bits, low_mask, high_mask;
    uint4 a, b;  // the keys of the eight rounds

    __device__ __forceinline__ Permutation(u64 seed, u32 epoch, u32 n) : n(n) {
        a = philox4x32_10(make_uint4(0, epoch, 0, 1), seed);
        b = philox4x32_10(make_uint4(1, epoch, 0, 1), seed);
        const u32 bits = n > 1 ? 32 - __clz(static_cast<int>(n - 1)) : 0;
        low_bits = bits / 2;
        low_mask = (1u << low_bits) - 1;
        high_mask = (1u << (bits - low_bits)) - 1;
    }

    static __device__ __forceinline__ u32 fold(u32 a, u32 m) {
        const u64 product = static_cast<u64>(a) * m;
        return static_cast<u32>(product >> 32) ^ static_cast<u32>(product);
    }

    static __device__ __forceinline__ u32 mix(u32 x, u32 key) {
        return fold(fold(x ^ key, PHILOX_MULTIPLY_0), PHILOX_MULTIPLY_1);
    }

    // What stands at position i < n.
    __device__ __forceinline__ u32 at(u32 i) const {
        u32 x = i;
        do {
            u32 low = x & low_mask, high = x >> low_bits;
            high ^= mix(low, a.x) & high_mask;
            low ^= mix(high, a.y) & low_mask;
            high ^= mix(low, a.z) & high_mask;
            low ^= mix(high, a.w) & low_mask;
            high ^= mix(low, b.x) & high_mask;
            low ^= mix(high, b.y) & low_mask;
            high ^= mix(low, b.z) & high_mask;
            low ^= mix(high, b.w) & low_mask;
            x = high << low_bits | low;
        } while (x >= n);
        return x;
    }
};
