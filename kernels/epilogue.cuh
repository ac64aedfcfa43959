// Epilogues: what a matrix product does with its elements instead of storing them.
//
// Any pointwise program can be one; program.cuh interprets it. The few forms that every step of a VAE consists of are
// also written by hand here, without registers in memory. `epilogue` in src/engine/steps/gemm/cuda.rs recognises the programs
// that have exactly one of these forms. The operands are found where such a program has them, in the order in which it
// loads them, and the operations are the same in the same order, so that the bits are those of the interpreter.
//
//   number             y = outputs[0]                    operands
//   BIAS               s + b                             inputs[0] = b, one number per column
//   BIAS_RELU          max(s + b, 0)                     inputs[0] = b
//   BIAS_TANH          tanh(s + b)                       inputs[0] = b
//   RELU_BACKWARD      s · [h > 0]                       inputs[0] = h, the activation's output
//   TANH_BACKWARD      s · (1 − h²)                      inputs[0] = h
//   BERNOULLI          l = s + b;  y = x·c₀ + c₁·σ(l)    inputs[0] = x, inputs[1] = b; c₀, c₁ are the first two
//                      outputs[1] = Σ softplus(l) − x·l  constants of the program (c₀ = −c₁)
//
// where s is the product's element.
//
// Each is a function of a quad below, which says in FULL and ROW which operands it has; gemm_finish.cuh and rows.cu load
// them, call the function for all quads of a thread and store what it returns.
#pragma once
#include "params.cuh"
#include "program.cuh"
#include "quad.cuh"
#include "scalar.cuh"

enum Epilogue : int {
    EPILOGUE_PROGRAM = 0,
    EPILOGUE_BIAS = 1,
    EPILOGUE_BIAS_RELU = 2,
    EPILOGUE_BIAS_TANH = 3,
    EPILOGUE_RELU_BACKWARD = 4,
    EPILOGUE_TANH_BACKWARD = 5,
    EPILOGUE_BERNOULLI = 6,
};

template <class F>
__device__ __forceinline__ float4 map_quad(float4 a, float4 b, F f) {
    return make_float4(f(a.x, b.x).v, f(a.y, b.y).v, f(a.z, b.z).v, f(a.w, b.w).v);
}

// Adds the first n lanes, in the order of program_quad.
__device__ __forceinline__ void add_lanes(float& sum, float4 v, int n) {
    if (n > 0) sum = __fadd_rn(sum, v.x);
    if (n > 1) sum = __fadd_rn(sum, v.y);
    if (n > 2) sum = __fadd_rn(sum, v.z);
    if (n > 3) sum = __fadd_rn(sum, v.w);
}

constexpr int NO_OPERAND = -1;

// FULL: number of the operand with one value per element. ROW: of that with one value per column. LONG: the function has so
// many instructions that a thread runs it quad by quad: other warps have enough to do while one waits for its operands.
template <int FULL_, int ROW_, bool LONG_>
struct HandWritten {
    static constexpr int FULL = FULL_, ROW = ROW_;
    static constexpr bool LONG = LONG_;
};

// y of a quad whose first n lanes count, given s and the operands; an operand that there is not is zero. What is summed is
// added to `sum`. A quad with n = 0 comes to the short functions too, and its y goes nowhere.

struct Bias : HandWritten<NO_OPERAND, 0, false> {
    __device__ __forceinline__ float4 operator()(float4 s, float4, float4 b, int, float&) const {
        return map_quad(s, b, [](f32 s, f32 b) { return s + b; });
    }
};

struct BiasRelu : HandWritten<NO_OPERAND, 0, false> {
    __device__ __forceinline__ float4 operator()(float4 s, float4, float4 b, int, float&) const {
        return map_quad(s, b, [](f32 s, f32 b) { return scalar::relu(s + b); });
    }
};

struct BiasTanh : HandWritten<NO_OPERAND, 0, true> {
    __device__ __forceinline__ float4 operator()(float4 s, float4, float4 b, int, float&) const {
        return map_quad(s, b, [](f32 s, f32 b) { return scalar::tanh(s + b); });
    }
};

struct ReluBackward : HandWritten<0, NO_OPERAND, false> {
    __device__ __forceinline__ float4 operator()(float4 s, float4 h, float4, int, float&) const {
        return map_quad(s, h, [](f32 s, f32 h) { return s * scalar::step(h); });
    }
};

struct TanhBackward : HandWritten<0, NO_OPERAND, false> {
    __device__ __forceinline__ float4 operator()(float4 s, float4 h, float4, int, float&) const {
        return map_quad(s, h, [](f32 s, f32 h) { return s * (f32(1.0f) - scalar::square(h)); });
    }
};

struct Bernoulli : HandWritten<0, 1, true> {
    f32 c0, c1;

    template <class AnyProgram>
    __device__ __forceinline__ explicit Bernoulli(const AnyProgram& program)
        : c0(math::from_bits(program.code[0].imm)), c1(math::from_bits(program.code[1].imm)) {}

    __device__ __forceinline__ float4 operator()(float4 s, float4 x, float4 b, int n, float& sum) const {
        const f32 c0 = this->c0, c1 = this->c1;
        const float4 l = map_quad(s, b, [](f32 s, f32 b) { return s + b; });
        const float4 e = map_quad(l, l, [](f32 l, f32) { return scalar::exp_minus_abs(l); });
        const float4 softplus = map_quad(l, e, [](f32 l, f32 e) { return scalar::softplus_of_exp(l, e); });
        const float4 sigmoid = map_quad(l, e, [](f32 l, f32 e) { return scalar::sigmoid_of_exp(l, e); });
        const float4 x_l = map_quad(x, l, [](f32 x, f32 l) { return x * l; });
        add_lanes(sum, map_quad(softplus, x_l, [](f32 softplus, f32 x_l) { return softplus - x_l; }), n);
        return map_quad(x, sigmoid, [=](f32 x, f32 sigmoid) { return x * c0 + c1 * sigmoid; });
    }
};
