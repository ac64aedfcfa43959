// A hash of what the portable functions give on a range of inputs, for comparing devices over all 2³² of them.
//
// The hash is the sum, modulo 2⁶⁴, over inputs i of mix(i · 2³² + bits(i)), where bits(i) is the result for input i
// with every NaN counted as 0x7fc00000, and mix is the end of splitmix64:
//
//     z ^= z >> 30;  z *= 0xbf58476d1ce4e5b9;  z ^= z >> 27;  z *= 0x94d049bb133111eb;  z ^= z >> 31
//
// A sum does not depend on order, and each term depends on its input, so any difference shows. `which` says the result:
//
//     0 … 15            the scalar function of that number (the order of ScalarFn::ALL) of the float with bits i
//     HASH_POW          single::pow(the float with bits i, the f64 with bits `seed`)
//     HASH_UNIT_LOG     unit_log((2²⁴ − ⌊i/2⁸⌋) · 2⁻²⁴)
//     HASH_SIN, _COS    sincospi(⌊i/2⁸⌋)
//     HASH_NORMAL       Draw {seed, step: 0, stream: 0}.normal(i);  HASH_UNIFORM likewise
//
// Launch:
//   threads = 256, shared = 0, any grid: 8192 for all inputs. `out` is added to.
#include "params.cuh"
#include "philox.cuh"
#include "scalar.cuh"

__device__ __forceinline__ u64 mix(u64 z) {
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

__device__ __forceinline__ float lane(float4 v, u32 at) { return at == 0 ? v.x : at == 1 ? v.y : at == 2 ? v.z : v.w; }

__device__ __forceinline__ f32 result(const HashParams& p, u32 i) {
    const f32 x = math::from_bits(i);
    f32 sine, cosine;
    switch (p.which) {
#define ELBO_CASE(name, value) \
    case UNARY_##name: return scalar::name(x);
        ELBO_SCALAR_FUNCTIONS(ELBO_CASE)
#undef ELBO_CASE
        case HASH_POW: return math::pow(x, __longlong_as_double(static_cast<long long>(p.seed)));
        case HASH_UNIT_LOG: return unit_log(math::from_int(static_cast<int>(0x01000000u - (i >> 8))) * PHILOX_UNIT);
        case HASH_SIN: return sincospi(i >> 8, sine, cosine), sine;
        case HASH_COS: return sincospi(i >> 8, sine, cosine), cosine;
        default: return lane(draw_block({p.seed, 0, 0}, p.which == HASH_NORMAL, i >> 2), i & 3);
    }
}

ELBO_KERNEL(noise_hash, 256, HashParams) {
    const u64 threads = static_cast<u64>(gridDim.x) * blockDim.x;
    u64 sum = 0;
    for (u64 k = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x; k < p.count; k += threads) {
        const u64 i = p.first + k;
        const f32 y = result(p, static_cast<u32>(i));
        sum += mix(i << 32 | (math::is_nan(y) ? math::NAN_BITS : math::bits(y)));
    }
    atomicAdd(p.out, sum);
}
