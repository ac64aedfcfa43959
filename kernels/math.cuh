// f32 functions as straight-line arithmetic: the twin of src/engine/math/single.rs, operation by operation.
//
// Read that file for the formulas, the error bounds and the limits; this one has the same functions in the same order.
// nvcc contracts a·b + c to one rounding, which would change bits, so numbers are wrapped: `f32` and `f64` below are
// float and double whose + − × ÷ are each rounded to nearest on their own. With them the formulas read as in Rust. The
// bits of every result equal the CPU's (noise_hash.cu compares them over all inputs), except that a NaN is any NaN.
#pragma once
#include "elbo.cuh"

struct f32 {
    float v;
    f32() = default;
    __device__ __forceinline__ f32(float v) : v(v) {}
};

__device__ __forceinline__ f32 operator+(f32 a, f32 b) { return __fadd_rn(a.v, b.v); }
__device__ __forceinline__ f32 operator-(f32 a, f32 b) { return __fsub_rn(a.v, b.v); }
__device__ __forceinline__ f32 operator*(f32 a, f32 b) { return __fmul_rn(a.v, b.v); }
__device__ __forceinline__ f32 operator/(f32 a, f32 b) { return __fdiv_rn(a.v, b.v); }
__device__ __forceinline__ f32 operator-(f32 a) { return -a.v; }
__device__ __forceinline__ bool operator<(f32 a, f32 b) { return a.v < b.v; }
__device__ __forceinline__ bool operator>(f32 a, f32 b) { return a.v > b.v; }
__device__ __forceinline__ bool operator<=(f32 a, f32 b) { return a.v <= b.v; }
__device__ __forceinline__ bool operator>=(f32 a, f32 b) { return a.v >= b.v; }
__device__ __forceinline__ bool operator==(f32 a, f32 b) { return a.v == b.v; }
__device__ __forceinline__ bool operator!=(f32 a, f32 b) { return a.v != b.v; }

struct f64 {
    double v;
    f64() = default;
    __device__ __forceinline__ f64(double v) : v(v) {}
};

__device__ __forceinline__ f64 operator+(f64 a, f64 b) { return __dadd_rn(a.v, b.v); }
__device__ __forceinline__ f64 operator-(f64 a, f64 b) { return __dsub_rn(a.v, b.v); }
__device__ __forceinline__ f64 operator*(f64 a, f64 b) { return __dmul_rn(a.v, b.v); }
__device__ __forceinline__ f64 operator/(f64 a, f64 b) { return __ddiv_rn(a.v, b.v); }

namespace math {

constexpr float ROUND = 12582912.0f;     // 1.5·2²³
constexpr u32 ROUND_BITS = 0x4b400000;   // its bits
constexpr float LN2_HI = 0.69314575f;
constexpr float LN2_LO = 1.4286068e-6f;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float TWO_23 = 8388608.0f;
constexpr float MIN_POSITIVE = 1.17549435e-38f;  // the least normal number
constexpr u32 SIGN = 0x80000000;
constexpr u32 SQRT_HALF = 0x3f3504f3;
constexpr u32 INFINITY_BITS = 0x7f800000;
constexpr u32 NAN_BITS = 0x7fc00000;

__device__ __forceinline__ u32 bits(f32 x) { return __float_as_uint(x.v); }
__device__ __forceinline__ f32 from_bits(u32 bits) { return __uint_as_float(bits); }
__device__ __forceinline__ f32 from_int(int k) { return static_cast<float>(k); }
__device__ __forceinline__ bool is_nan(f32 x) { return x != x; }
__device__ __forceinline__ f32 select(bool cond, f32 a, f32 b) { return cond ? a.v : b.v; }
__device__ __forceinline__ f32 abs(f32 x) { return from_bits(bits(x) & ~SIGN); }
__device__ __forceinline__ f32 sqrt(f32 x) { return __fsqrt_rn(x.v); }

// The larger, NaN if either is; of two equal numbers (+0 and −0), b. `choices!` in src/engine/math.rs.
__device__ __forceinline__ f32 max(f32 a, f32 b) { return select(a > b || is_nan(a), a, b); }
__device__ __forceinline__ f32 min(f32 a, f32 b) { return select(a < b || is_nan(a), a, b); }

// ---- the parts, which single.rs has at its end ----

// c₀ + c₁x + c₂x² + …, given z = x²: even and odd powers by Horner's rule in z, then even + x·odd.
template <int N>
__device__ __forceinline__ f32 polynomial(f32 x, f32 z, const float (&c)[N]) {
    f32 p[2];
    p[(N - 1) & 1] = c[N - 1];
    p[N & 1] = c[N - 2];
#pragma unroll
    for (int i = N - 3; i >= 0; i--) p[i & 1] = p[i & 1] * z + c[i];
    return p[0] + x * p[1];
}

// 2ᵏ for −127 ≤ k ≤ 127, where 2⁻¹²⁷ reads as 0. In unsigned numbers, which may wrap: k is anything where x is NaN.
__device__ __forceinline__ f32 exp2i(u32 k) { return from_bits((k + 127) << 23); }

// 2⁻ᵏ for −127 ≤ k; 0 from k = 127 on.
__device__ __forceinline__ f32 exp2_minus(int k) { return exp2i(0u - (k > 127 ? 127 : k)); }

// y·2ᵏ for −252 ≤ k ≤ 254 in two steps.
__device__ __forceinline__ f32 scale(f32 y, int k) {
    const int half = k >> 1;
    return y * exp2i(half) * exp2i(k - half);
}

__device__ __forceinline__ f32 with_sign_of(f32 y, f32 x) { return from_bits(bits(y) | (bits(x) & SIGN)); }

// x limited to [lo, hi]; NaN stays.
__device__ __forceinline__ f32 clamp(f32 x, f32 lo, f32 hi) {
    const f32 y = select(x > hi, hi, x);
    return select(y < lo, lo, y);
}

// x = k·ln 2 + r with |r| ≤ ½ ln 2: returns eʳ − 1.
__device__ __forceinline__ f32 reduce_exp(f32 x, int& k) {
    const f32 t = x * LOG2_E + ROUND;
    const f32 n = t - ROUND;
    k = static_cast<int>(bits(t) - ROUND_BITS);
    const f32 r = (x - n * LN2_HI) - n * LN2_LO;
    const f32 z = r * r;
    const f32 q = polynomial(r, z, {0.5f, 1.6666545e-1f, 4.1666403e-2f, 8.366406e-3f, 1.3940658e-3f});
    return r + z * q;
}

// x = 2ᵏ·m with m in [√½, √2), for positive, normal, finite x: returns m.
__device__ __forceinline__ f32 split(f32 x, int& k) {
    k = static_cast<int>(bits(x) - SQRT_HALF) >> 23;
    return from_bits(bits(x) - (static_cast<u32>(k) << 23));
}

// ln(2ᵏ·(1 + f)) for 1 + f in [√½, √2).
__device__ __forceinline__ f32 log_reduced(int exponent, f32 f) {
    const f32 k = from_int(exponent);
    const f32 z = f * f;
    const f32 q = polynomial(f, z,
                             {3.333333e-1f, -2.500082e-1f, 2.000124e-1f, -1.6623402e-1f, 1.420161e-1f, -1.3159753e-1f,
                              1.2762114e-1f, -7.6358944e-2f});
    const f32 y = ((f * z) * q + k * LN2_LO) - f32(0.5f) * z;
    return (f + y) + k * LN2_HI;
}

// log₂ a in f64, for positive finite a.
__device__ __forceinline__ f64 log2_f64(f32 a) {
    const bool tiny = a < MIN_POSITIVE;
    int k;
    const f64 m = static_cast<double>(split(select(tiny, a * TWO_23, a), k).v);
    const f64 exponent = static_cast<double>(tiny ? k - 23 : k);
    const f64 s = (m - 1.0) / (m + 1.0);
    const f64 w = s * s;
    f64 l = 0.3407441746815728;
    l = l * w + 0.4116719938398453;
    l = l * w + 0.5770835964105373;
    l = l * w + 0.9617966732855641;
    l = l * w + 2.885390081790128;
    return exponent + s * l;
}

// 2ʸ in f64, with y limited to [−200, 200].
__device__ __forceinline__ f64 exp2_f64(f64 y) {
    const f64 round = 6755399441055744.0;  // 1.5·2⁵²
    y = y.v > 200.0 ? 200.0 : y.v;
    y = y.v < -200.0 ? -200.0 : y.v;
    const f64 t = y + round;
    const f64 g = y - (t - round);
    f64 p = 1.5201921388525537e-5;
    p = p * g + 1.5469291145657415e-4;
    p = p * g + 1.3333922564237157e-3;
    p = p * g + 9.618027253678161e-3;
    p = p * g + 5.550410353447319e-2;
    p = p * g + 2.4022651198157172e-1;
    p = p * g + 6.931471807284472e-1;
    p = p * g + 9.999999999616821e-1;
    const u64 power = (static_cast<u64>(__double_as_longlong(t.v)) + 1023) << 52;
    return p * __longlong_as_double(static_cast<long long>(power));
}

// ---- the functions ----

__device__ __forceinline__ f32 exp(f32 x) {
    int k;
    const f32 p = reduce_exp(clamp(x, -104.0f, 89.0f), k);
    return scale(f32(1.0f) + p, k);
}

__device__ __forceinline__ f32 expm1(f32 x) {
    int k;
    const f32 p = reduce_exp(clamp(x, -18.0f, 89.0f), k);
    return with_sign_of(scale(p + (f32(1.0f) - exp2_minus(k)), k), x);
}

__device__ __forceinline__ f32 expm1mx(f32 x) {
    const f32 z = x * x;
    const f32 series = polynomial(x, z,
                                  {0.5f, 1.6666667e-1f, 4.1666668e-2f, 8.333334e-3f, 1.3888889e-3f, 1.984127e-4f,
                                   2.4801588e-5f, 2.755732e-6f, 2.7557319e-7f, 2.5052108e-8f});
    const f32 difference = expm1(x) - select(x > 89.0f, 89.0f, x);
    return select(abs(x) <= 1.0f, z * series, difference);
}

// What a logarithm is where its argument a = x or 1 + x is not a positive finite number, and y elsewhere.
__device__ __forceinline__ f32 log_limits(f32 x, f32 y, f32 zero_of_a) {
    y = select(x < from_bits(INFINITY_BITS), y, x);
    const f32 outside = select(x == zero_of_a, from_bits(SIGN | INFINITY_BITS), from_bits(NAN_BITS));
    return select(x > zero_of_a, y, outside);
}

__device__ __forceinline__ f32 log(f32 x) {
    const bool tiny = x < MIN_POSITIVE;
    int k;
    const f32 m = split(select(tiny, x * TWO_23, x), k);
    return log_limits(x, log_reduced(tiny ? k - 23 : k, m - 1.0f), 0.0f);
}

__device__ __forceinline__ f32 log_normal(f32 x) {
    int k;
    const f32 m = split(x, k);
    return log_reduced(k, m - 1.0f);
}

__device__ __forceinline__ f32 log1p(f32 x) {
    const f32 u = f32(1.0f) + x;
    const f32 b = u - 1.0f;
    const f32 lost = (f32(1.0f) - (u - b)) + (x - b);
    int k;
    const f32 m = split(u, k);
    const f32 y = with_sign_of(log_reduced(k, (m - 1.0f) + lost * exp2_minus(k)), x);
    return log_limits(x, y, -1.0f);
}

__device__ __forceinline__ f32 tanh(f32 x) {
    int k;
    const f32 p = reduce_exp(clamp(f32(2.0f) * abs(x), 0.0f, 20.0f), k);
    const f32 t = (p + (f32(1.0f) - exp2_minus(k))) * exp2i(k);
    return with_sign_of(t / (t + 2.0f), x);
}

// xᶜ for finite c.
__device__ __forceinline__ f32 pow(f32 x, double c) {
    const bool whole = ::trunc(c) == c;
    const bool odd = whole && ::trunc(c * 0.5) != c * 0.5;
    const u32 sign = odd ? SIGN : 0;
    const u32 not_a_number = whole ? 0 : ~SIGN;
    const f32 infinity = from_bits(INFINITY_BITS);
    const f32 at_zero = c == 0.0 ? f32(1.0f) : c > 0.0 ? f32(0.0f) : infinity;
    const f32 at_infinity = c == 0.0 ? f32(1.0f) : c < 0.0 ? f32(0.0f) : infinity;
    const f32 at_nan = c == 0.0 ? f32(1.0f) : from_bits(NAN_BITS);

    const f32 a = abs(x);
    f32 y = static_cast<float>(exp2_f64(f64(c) * log2_f64(a)).v);
    y = select(a == 0.0f, at_zero, y);
    y = select(a < infinity, y, at_infinity);
    const u32 outside = x < 0.0f && a < infinity ? not_a_number : 0;
    y = from_bits(bits(y) | (bits(x) & sign) | outside);
    return select(is_nan(x), at_nan, y);
}

}  // namespace math
