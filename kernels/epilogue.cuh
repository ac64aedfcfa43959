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
    sum = __fadd_rn(sum, v.x);
    if (n > 1) sum = __fadd_rn(sum, v.y);
    if (n > 2) sum = __fadd_rn(sum, v.z);
    if (n > 3) sum = __fadd_rn(sum, v.w);
}

// Columns col … col + n of row `row`, with 1 ≤ n ≤ 4.
template <class AnyProgram>
__device__ __forceinline__ void hand_written(int epilogue, const AnyProgram& program, int row, int col, int n, float4 s,
                                             float (&sums)[MAX_SUMS]) {
    const auto operand = [&](int i) {
        const Input& in = program.inputs[i];
        return load_quad(element(in.ptr, in.stride, in.access == ACCESS_ROW ? 0 : row, col), n);
    };
    const float4 u = operand(0);  // b, h or x
    float4 y;
    switch (epilogue) {
        case EPILOGUE_BIAS:
            y = map_quad(s, u, [](f32 s, f32 b) { return s + b; });
            break;
        case EPILOGUE_BIAS_RELU:
            y = map_quad(s, u, [](f32 s, f32 b) { return scalar::relu(s + b); });
            break;
        case EPILOGUE_BIAS_TANH:
            y = map_quad(s, u, [](f32 s, f32 b) { return scalar::tanh(s + b); });
            break;
        case EPILOGUE_RELU_BACKWARD:
            y = map_quad(s, u, [](f32 s, f32 h) { return s * scalar::step(h); });
            break;
        case EPILOGUE_TANH_BACKWARD:
            y = map_quad(s, u, [](f32 s, f32 h) { return s * (f32(1.0f) - scalar::square(h)); });
            break;
        default: {
            const f32 c0 = math::from_bits(program.code[0].imm), c1 = math::from_bits(program.code[1].imm);
            const float4 l = map_quad(s, operand(1), [](f32 s, f32 b) { return s + b; });
            const float4 e = map_quad(l, l, [](f32 l, f32) { return scalar::exp_minus_abs(l); });
            const float4 softplus = map_quad(l, e, [](f32 l, f32 e) { return scalar::softplus_of_exp(l, e); });
            const float4 sigmoid = map_quad(l, e, [](f32 l, f32 e) { return scalar::sigmoid_of_exp(l, e); });
            y = map_quad(u, sigmoid, [=](f32 x, f32 sigmoid) { return x * c0 + c1 * sigmoid; });
            const float4 x_l = map_quad(u, l, [](f32 x, f32 l) { return x * l; });
            const float4 loss = map_quad(softplus, x_l, [](f32 softplus, f32 x_l) { return softplus - x_l; });
            add_lanes(sums[0], loss, n);
        }
    }
    const Output& out = program.outputs[0];
    store_quad(element(out.ptr, out.stride, row, col), y, n);
}
