// Pointwise programs that are known at compile time: the instructions of program.cuh without their interpretation.
//
// Registers are registers and every branch on an instruction is gone, so that a thread has the latency of the arithmetic
// alone. The functions and their order are those of the interpreter, and so are the bits. Which programs there are stands
// in programs.cuh, which the engine writes (src/engine/device/cuda/compiled.rs); numbers that differ from plan to plan
// (constants, streams of noise, addresses) are read from the parameters, as the interpreter does.
#pragma once
#include "program.cuh"

// What becomes of a register: kinds are those of Output.
struct Kept {
    u16 reg, kind;
};

#include "programs.cuh"

template <class F>
__device__ __forceinline__ float4 each_lane(float4 a, F f) {
    return make_float4(f(a.x).v, f(a.y).v, f(a.z).v, f(a.w).v);
}

template <class F>
__device__ __forceinline__ float4 each_pair(float4 a, float4 b, F f) {
    return make_float4(f(a.x, b.x).v, f(a.y, b.y).v, f(a.z, b.z).v, f(a.w, b.w).v);
}

// A compiled program with this thread's registers. P is one of programs.cuh, AnyProgram a Program of any size.
template <class P, class AnyProgram>
struct Compiled {
    const AnyProgram& p;
    const StepValues& s;
    float4 regs[P::REGS];

    // Fills the registers that hold the same value everywhere.
    __device__ __forceinline__ Compiled(const AnyProgram& p, const StepValues& s) : p(p), s(s) {
        run<0, P::UNIFORM>(0, 0, 0, splat(0.0f));
    }

    // As program_quad.
    __device__ __forceinline__ void quad(int row, int col, int n, float4 acc, float (&sums)[MAX_SUMS]) {
        run<P::UNIFORM, P::UNIFORM + P::BODY>(row, col, n, acc);
        keep<0, 0>(row, col, n, sums);
    }

private:
    template <int PC, int END>
    __device__ __forceinline__ void run(int row, int col, int n, float4 acc) {
        if constexpr (PC < END) {
            constexpr Instr i = P::CODE[PC];
            if constexpr (i.op == OP_ACC) {
                regs[i.dst] = acc;
            } else if constexpr (i.op == OP_LOAD) {
                if constexpr (PC < P::UNIFORM) regs[i.dst] = splat(*p.inputs[i.imm].ptr);
                else regs[i.dst] = load_operand(p.inputs[i.imm], row, col, n);
            } else if constexpr (i.op == OP_CONST) {
                regs[i.dst] = splat(__uint_as_float(p.code[PC].imm));
            } else if constexpr (i.op == OP_CTL) {
                regs[i.dst] = splat(control_value(s, i.imm));
            } else if constexpr (i.op == OP_NORMAL || i.op == OP_UNIFORM) {
                const u64 first = static_cast<u64>(row) * p.cols + col;
                const Draw draw = {s.seed, s.step, p.code[PC].imm};
                regs[i.dst] = draw_quad(draw, i.op == OP_NORMAL, first, n);
            } else if constexpr (i.op == OP_SOFTPLUS_SIGMOID) {
                const float4 a = regs[i.a];
                const float4 e = each_lane(a, [](f32 x) { return scalar::exp_minus_abs(x); });
                regs[i.dst] = each_pair(a, e, [](f32 x, f32 e) { return scalar::softplus_of_exp(x, e); });
                regs[i.b] = each_pair(a, e, [](f32 x, f32 e) { return scalar::sigmoid_of_exp(x, e); });
            }
#define ELBO_CASE(name, value)                                 \
    else if constexpr (i.op == OP_UNARY + int(UNARY_##name)) { \
        regs[i.dst] = each_lane(regs[i.a], [](f32 x) { return scalar::name(x); }); \
    }
            ELBO_SCALAR_FUNCTIONS(ELBO_CASE)
#undef ELBO_CASE
#define ELBO_CASE(name, value)                                   \
    else if constexpr (i.op == OP_BINARY + int(BINARY_##name)) { \
        regs[i.dst] = each_pair(regs[i.a], regs[i.b], [](f32 a, f32 b) { return scalar::name(a, b); }); \
    }
            ELBO_BINARY_FUNCTIONS(ELBO_CASE)
#undef ELBO_CASE
            run<PC + 1, END>(row, col, n, acc);
        }
    }

    template <int O, int SUM>
    __device__ __forceinline__ void keep(int row, int col, int n, float (&sums)[MAX_SUMS]) {
        if constexpr (O < P::OUTPUTS) {
            constexpr Kept kept = P::KEPT[O];
            const float4 v = regs[kept.reg];
            if constexpr (kept.kind == 0) {
                store_quad(element(p.outputs[O].ptr, p.outputs[O].stride, row, col), v, n);
                keep<O + 1, SUM>(row, col, n, sums);
            } else {
                sums[SUM] += v.x;
                if (n > 1) sums[SUM] += v.y;
                if (n > 2) sums[SUM] += v.z;
                if (n > 3) sums[SUM] += v.w;
                keep<O + 1, SUM + 1>(row, col, n, sums);
            }
        }
    }
};

// Calls body(program with quad(row, col, n, acc, sums)) with the compiled program of this number and returns true; false for
// 0, a program that is none of them.
template <class AnyProgram, class Body>
__device__ __forceinline__ bool with_compiled(const AnyProgram& program, const StepValues& values, Body body) {
    switch (program.compiled) {
#define ELBO_CASE(number, P)                             \
    case number: {                                       \
        Compiled<P, AnyProgram> run(program, values);    \
        body(run);                                       \
        return true;                                     \
    }
        ELBO_COMPILED_PROGRAMS(ELBO_CASE)
#undef ELBO_CASE
        default: return false;
    }
}
