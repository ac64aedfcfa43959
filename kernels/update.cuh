// The update of parameters, in the operation order of Optimizer::update in src/engine/optim.rs, so that equal gradients give
// equal bits, whoever makes the update: optimize.cu from gradients in memory, or the product that makes them.
//
//   adam: m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  p ← p − rate · m / (√v · root_scale + ε)
//   sgd:  m ← μ m + g,  p ← p − rate · m
//
// A moment next to zero is zero, as on the CPU, where it would become a denormal that slows every later update.
#pragma once
#include "math.cuh"
#include "params.cuh"
#include "quad.cuh"
#include "step_end.cuh"

// LEAST_FIRST_MOMENT and LEAST_SECOND_MOMENT of src/engine/optim.rs.
constexpr float LEAST_FIRST_MOMENT = 1e-30f;
constexpr float LEAST_SECOND_MOMENT = 1e-36f;

__device__ __forceinline__ f32 or_zero(f32 x, float least) { return math::select(math::abs(x) < least, 0.0f, x); }

// The numbers of one update, in f32 as on the CPU.
struct Update {
    f32 scale, rate, root_scale, beta1, beta2, one_minus_beta1, one_minus_beta2, eps, momentum;

    __device__ __forceinline__ Update(const Clock& clock, const RuleParams& by, float of_gradient) {
        const StepValues& values = clock.table[clock.ctl->now];
        scale = of_gradient;
        rate = values.rate;
        root_scale = values.root_scale;
        beta1 = by.beta1;
        beta2 = by.beta2;
        one_minus_beta1 = by.one_minus_beta1;
        one_minus_beta2 = by.one_minus_beta2;
        eps = by.eps;
        momentum = by.momentum;
    }

    __device__ __forceinline__ void moments(float gradient, float& m, float& v) const {
        const f32 g = f32(gradient) * scale;
        m = or_zero(beta1 * m + one_minus_beta1 * g, LEAST_FIRST_MOMENT).v;
        v = or_zero(beta2 * v + one_minus_beta2 * g * g, LEAST_SECOND_MOMENT).v;
    }

    __device__ __forceinline__ void adam(float& p, float m, float v) const {
        p = (f32(p) - rate * m / (math::sqrt(v) * root_scale + eps)).v;
    }

    __device__ __forceinline__ void sgd(float& p, float gradient, float& m) const {
        m = or_zero(momentum * m + f32(gradient) * scale, LEAST_FIRST_MOMENT).v;
        p = (f32(p) - rate * m).v;
    }

    // Updates parameters at … at + n − 1, 1 ≤ n ≤ 4, with their gradients. The moments are stored before the square roots and
    // divisions of the parameters begin: fewer registers.
    __device__ __forceinline__ void adam_quad(const ParamPlaces& of, u64 at, float4 g, int n) const {
        float4 m = load_quad(of.m + at, n), v = load_quad(of.v + at, n), w = load_quad(of.p + at, n);
        moments(g.x, m.x, v.x);
        moments(g.y, m.y, v.y);
        moments(g.z, m.z, v.z);
        moments(g.w, m.w, v.w);
        store_quad(of.m + at, m, n);
        store_quad(of.v + at, v, n);
        adam(w.x, m.x, v.x);
        adam(w.y, m.y, v.y);
        adam(w.z, m.z, v.z);
        adam(w.w, m.w, v.w);
        store_quad(of.p + at, w, n);
    }

    __device__ __forceinline__ void sgd_quad(const ParamPlaces& of, u64 at, float4 g, int n) const {
        float4 w = load_quad(of.p + at, n), m = load_quad(of.m + at, n);
        sgd(w.x, g.x, m.x);
        sgd(w.y, g.y, m.y);
        sgd(w.z, g.z, m.z);
        sgd(w.w, g.w, m.w);
        store_quad(of.p + at, w, n);
        store_quad(of.m + at, m, n);
    }
};
