// Arithmetic: CUDA's intrinsics in terms of the C library. Files are compiled with -ffp-contract=off and without
// fast-math, so each operator below is one correctly rounded IEEE operation, as the _rn intrinsics are on the GPU.
//
// The elementary functions (expf, logf, …) are the C library's: accurate, but other bits than CUDA's.
#pragma once
#include <math.h>
#include <string.h>

#include "emu_vector.cuh"

namespace emu {

template <class To, class From>
inline To bits_of(From value) {
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To out;
    memcpy(&out, &value, sizeof out);
    return out;
}

// Conversion to an integer as the GPU does it: saturating, NaN to zero (to the lowest value for 64 bits, as PTX says).
template <class Int, class Float>
inline Int saturate(Float rounded, Int low, Int high, Int nan) {
    if (rounded != rounded) return nan;
    if (rounded <= static_cast<Float>(low)) return low;
    if (rounded >= static_cast<Float>(high)) return high;
    return static_cast<Int>(rounded);
}
constexpr int INT_LOW = -2147483647 - 1, INT_HIGH = 2147483647;
constexpr long long LONG_HIGH = 9223372036854775807ll, LONG_LOW = -LONG_HIGH - 1;

}  // namespace emu

// ---- one rounding each, never fused ----

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __drcp_rn(double a) { return 1.0 / a; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// ---- bits ----

inline u32 __float_as_uint(float a) { return emu::bits_of<u32>(a); }
inline int __float_as_int(float a) { return emu::bits_of<int>(a); }
inline float __uint_as_float(u32 a) { return emu::bits_of<float>(a); }
inline float __int_as_float(int a) { return emu::bits_of<float>(a); }
inline long long __double_as_longlong(double a) { return emu::bits_of<long long>(a); }
inline double __longlong_as_double(long long a) { return emu::bits_of<double>(a); }
inline int __double2hiint(double a) { return static_cast<int>(emu::bits_of<u64>(a) >> 32); }
inline int __double2loint(double a) { return static_cast<int>(emu::bits_of<u64>(a)); }
inline double __hiloint2double(int high, int low) {
    return emu::bits_of<double>(u64(static_cast<u32>(high)) << 32 | static_cast<u32>(low));
}

// ---- conversions ----

inline int __float2int_rz(float a) { return emu::saturate(truncf(a), emu::INT_LOW, emu::INT_HIGH, 0); }
inline int __float2int_rn(float a) { return emu::saturate(rintf(a), emu::INT_LOW, emu::INT_HIGH, 0); }
inline int __float2int_rd(float a) { return emu::saturate(floorf(a), emu::INT_LOW, emu::INT_HIGH, 0); }
inline int __float2int_ru(float a) { return emu::saturate(ceilf(a), emu::INT_LOW, emu::INT_HIGH, 0); }
inline u32 __float2uint_rz(float a) { return emu::saturate(truncf(a), 0u, 0xffffffffu, 0u); }
inline u32 __float2uint_rn(float a) { return emu::saturate(rintf(a), 0u, 0xffffffffu, 0u); }
inline u32 __float2uint_rd(float a) { return emu::saturate(floorf(a), 0u, 0xffffffffu, 0u); }
inline int __double2int_rz(double a) { return emu::saturate(trunc(a), emu::INT_LOW, emu::INT_HIGH, 0); }
inline int __double2int_rn(double a) { return emu::saturate(rint(a), emu::INT_LOW, emu::INT_HIGH, 0); }
inline u32 __double2uint_rz(double a) { return emu::saturate(trunc(a), 0u, 0xffffffffu, 0u); }
inline long long __float2ll_rz(float a) {
    return emu::saturate(truncf(a), emu::LONG_LOW, emu::LONG_HIGH, emu::LONG_LOW);
}
inline long long __double2ll_rz(double a) {
    return emu::saturate(trunc(a), emu::LONG_LOW, emu::LONG_HIGH, emu::LONG_LOW);
}
inline long long __double2ll_rn(double a) {
    return emu::saturate(rint(a), emu::LONG_LOW, emu::LONG_HIGH, emu::LONG_LOW);
}
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(u32 a) { return static_cast<float>(a); }
inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
inline float __ull2float_rn(u64 a) { return static_cast<float>(a); }
inline double __int2double_rn(int a) { return a; }
inline double __uint2double_rn(u32 a) { return a; }
inline double __ll2double_rn(long long a) { return static_cast<double>(a); }
inline double __ull2double_rn(u64 a) { return static_cast<double>(a); }
inline float __double2float_rn(double a) { return static_cast<float>(a); }

// ---- integers ----

inline int __popc(u32 a) { return __builtin_popcount(a); }
inline int __popcll(u64 a) { return __builtin_popcountll(a); }
inline int __clz(int a) { return a == 0 ? 32 : __builtin_clz(static_cast<u32>(a)); }
inline int __clzll(long long a) { return a == 0 ? 64 : __builtin_clzll(static_cast<u64>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline u32 __umulhi(u32 a, u32 b) { return static_cast<u32>(u64(a) * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline u64 __umul64hi(u64 a, u64 b) { return static_cast<u64>(static_cast<unsigned __int128>(a) * b >> 64); }
inline u32 __umul24(u32 a, u32 b) { return (a & 0xffffff) * (b & 0xffffff); }
inline u32 __brev(u32 a) {
    u32 out = 0;
    for (int i = 0; i < 32; ++i) out |= (a >> i & 1) << (31 - i);
    return out;
}
// Byte i of the result is byte (selector >> 4i) & 7 of the eight bytes a, b; bit 3 of a selector repeats its sign.
inline u32 __byte_perm(u32 a, u32 b, u32 selector) {
    u64 both = u64(b) << 32 | a;
    u32 out = 0;
    for (int i = 0; i < 4; ++i) {
        u32 pick = selector >> 4 * i & 15, byte = both >> 8 * (pick & 7) & 255;
        if (pick & 8) byte = byte & 128 ? 255 : 0;
        out |= byte << 8 * i;
    }
    return out;
}
inline u32 __funnelshift_l(u32 low, u32 high, u32 shift) {
    return static_cast<u32>((u64(high) << 32 | low) << (shift & 31) >> 32);
}
inline u32 __funnelshift_r(u32 low, u32 high, u32 shift) {
    return static_cast<u32>((u64(high) << 32 | low) >> (shift & 31));
}

// ---- smaller and larger ----

#define EMU_MIN_MAX(A, B, R)                                                                         \
    inline R min(A a, B b) { return static_cast<R>(a) < static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b); } \
    inline R max(A a, B b) { return static_cast<R>(a) > static_cast<R>(b) ? static_cast<R>(a) : static_cast<R>(b); }
EMU_MIN_MAX(int, int, int)
EMU_MIN_MAX(u32, u32, u32)
EMU_MIN_MAX(int, u32, u32)
EMU_MIN_MAX(u32, int, u32)
EMU_MIN_MAX(long, long, long)
EMU_MIN_MAX(unsigned long, unsigned long, unsigned long)
EMU_MIN_MAX(long long, long long, long long)
EMU_MIN_MAX(u64, u64, u64)
EMU_MIN_MAX(long long, u64, u64)
EMU_MIN_MAX(u64, long long, u64)
#undef EMU_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// ---- elementary functions that the C library has under another name, or not at all ----

inline float rsqrtf(float a) { return static_cast<float>(1.0 / sqrt(static_cast<double>(a))); }
inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float __frsqrt_rn(float a) { return rsqrtf(a); }
inline float __saturatef(float a) { return fminf(fmaxf(a, 0.0f), 1.0f); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return expf(a); }
inline float __logf(float a) { return logf(a); }
inline float __log2f(float a) { return log2f(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __sinf(float a) { return sinf(a); }
inline float __cosf(float a) { return cosf(a); }
inline float __tanhf(float a) { return tanhf(a); }
