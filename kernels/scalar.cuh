// The table of scalar functions: the twin of src/engine/ops/scalar.rs, one line each, in the order of ScalarFn::ALL and
// BinaryFn::ALL (tests/kernel_text.rs compares the names). From these lists come the functions below and the cases of
// the interpreter in program.cuh.
#pragma once
#include "math.cuh"

// X(name, value at x)
#define ELBO_SCALAR_FUNCTIONS(X)                                                                  \
    X(exp, math::exp(x))                                                                          \
    X(expm1, math::expm1(x))                                                                      \
    X(expm1mx, math::expm1mx(x))                                                                  \
    X(log, math::log(x))                                                                          \
    X(log1p, math::log1p(x))                                                                      \
    X(sqrt, math::sqrt(x))                                                                        \
    X(square, x * x)                                                                              \
    X(abs, math::abs(x))                                                                          \
    X(sign, math::select(x > 0.0f, 1.0f, math::select(x < 0.0f, -1.0f, 0.0f)))                    \
    X(step, math::select(x > 0.0f, 1.0f, 0.0f))                                                   \
    X(negate, -x)                                                                                 \
    X(relu, math::max(x, 0.0f))                                                                   \
    X(tanh, math::tanh(x))                                                                        \
    X(sigmoid, sigmoid_of_exp(x, exp_minus_abs(x)))                                               \
    X(softplus, softplus_of_exp(x, exp_minus_abs(x)))                                             \
    X(silu, gated(x, x * f32(0.5f)))                                                              \
    X(gelu, gated(x, gelu_inner(x)))

// X(name, value at a and b)
#define ELBO_BINARY_FUNCTIONS(X)                                                                  \
    X(add, a + b)                                                                                 \
    X(sub, a - b)                                                                                 \
    X(mul, a * b)                                                                                 \
    X(div, a / b)                                                                                 \
    X(max, math::max(a, b))                                                                       \
    X(min, math::min(a, b))                                                                       \
    X(lt, math::select(a < b, 1.0f, 0.0f))                                                        \
    X(le, math::select(a <= b, 1.0f, 0.0f))                                                       \
    X(eq, math::select(a == b, 1.0f, 0.0f))

// Their numbers, to be added to OP_UNARY and OP_BINARY.
#define ELBO_NUMBER(name, value) UNARY_##name,
enum UnaryNumber : int { ELBO_SCALAR_FUNCTIONS(ELBO_NUMBER) UNARY_COUNT };
#undef ELBO_NUMBER
#define ELBO_NUMBER(name, value) BINARY_##name,
enum BinaryNumber : int { ELBO_BINARY_FUNCTIONS(ELBO_NUMBER) BINARY_COUNT };
#undef ELBO_NUMBER

namespace scalar {

// e^(−|x|), which never overflows: what softplus and σ are made of.
__device__ __forceinline__ f32 exp_minus_abs(f32 x) { return math::exp(-math::abs(x)); }

// σ(x), given e = e^(−|x|).
__device__ __forceinline__ f32 sigmoid_of_exp(f32 x, f32 e) {
    return math::select(x >= 0.0f, 1.0f, e) / (f32(1.0f) + e);
}

// ln(1 + eˣ) = max(x, 0) + ln(1 + e), given e = e^(−|x|).
__device__ __forceinline__ f32 softplus_of_exp(f32 x, f32 e) { return math::max(x, 0.0f) + math::log1p(e); }

// x·σ(2u) for u of the sign of x.
__device__ __forceinline__ f32 gated(f32 x, f32 u) {
    const f32 h = exp_minus_abs(u);
    return math::select(u >= 0.0f, x, x * h * h) / (f32(1.0f) + h * h);
}

// √(2/π)·(x + 0.044715x³)
__device__ __forceinline__ f32 gelu_inner(f32 x) {
    return f32(0.7978845608028654f) * (x + f32(0.044715f) * x * x * x);
}

#define ELBO_DEFINE(name, value) \
    __device__ __forceinline__ f32 name(f32 x) { return value; }
ELBO_SCALAR_FUNCTIONS(ELBO_DEFINE)
#undef ELBO_DEFINE

#define ELBO_DEFINE(name, value) \
    __device__ __forceinline__ f32 name(f32 a, f32 b) { return value; }
ELBO_BINARY_FUNCTIONS(ELBO_DEFINE)
#undef ELBO_DEFINE

}  // namespace scalar
