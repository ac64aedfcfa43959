// The interpreter of pointwise programs: the twin of src/engine/steps/pointwise.rs.
//
// A thread runs a program on a quad, up to four neighbouring columns of a row. A register is a float4 per thread; the
// register file lies in shared memory as [register][thread], so that the threads of a warp, which all execute the same
// instruction, access neighbouring float4s without bank conflicts, and register numbers may be known at run time only.
// The branch on the instruction is uniform over the block. The program itself is a kernel parameter, that is, it is
// read through the constant cache.
//
// AnyProgram is a Program or a SmallProgram. Three functions, in the order of their use: program_uniform once per thread,
// program_quad for every quad, program_sums once per block. The kernels are pointwise.cu, rows.cu, scalars.cu and the matrix
// product's epilogue.
#pragma once
#include "params.cuh"
#include "philox.cuh"
#include "quad.cuh"
#include "reduce_block.cuh"
#include "scalar.cuh"

static_assert(UNARY_COUNT <= OP_BINARY - OP_UNARY, "the numbers of instructions do not overlap");

// Register r of this thread is base[r · stride]. Shared bytes of a block: registers · threads · 16.
struct QuadRegs {
    float4* base;
    int stride;
};

// The values of N lanes: 4 in a program's body, 1 where all elements have the same value.
template <int N>
struct Lanes {
    f32 v[N];
};

__device__ __forceinline__ Lanes<4> lanes_of(float4 q) { return {{q.x, q.y, q.z, q.w}}; }

template <int N>
__device__ __forceinline__ Lanes<N> read_register(QuadRegs regs, u32 reg) {
    const float4 q = regs.base[reg * regs.stride];
    if constexpr (N == 4) return lanes_of(q);
    else return {{q.x}};
}

// A single value goes to all four lanes.
template <int N>
__device__ __forceinline__ void write_register(QuadRegs regs, u32 reg, Lanes<N> x) {
    regs.base[reg * regs.stride] = make_float4(x.v[0].v, x.v[1 % N].v, x.v[2 % N].v, x.v[3 % N].v);
}

template <int N, class F>
__device__ __forceinline__ void map_register(QuadRegs regs, Instr i, F f) {
    const Lanes<N> a = read_register<N>(regs, i.a);
    Lanes<N> y;
#pragma unroll
    for (int l = 0; l < N; l++) y.v[l] = f(a.v[l]);
    write_register<N>(regs, i.dst, y);
}

template <int N, class F>
__device__ __forceinline__ void zip_registers(QuadRegs regs, Instr i, F f) {
    const Lanes<N> a = read_register<N>(regs, i.a), b = read_register<N>(regs, i.b);
    Lanes<N> y;
#pragma unroll
    for (int l = 0; l < N; l++) y.v[l] = f(a.v[l], b.v[l]);
    write_register<N>(regs, i.dst, y);
}

// An operand's values at (row, col … col + n − 1); lanes beyond are zero or a copy, and nothing is read for them.
__device__ __forceinline__ float4 load_operand(const Input& input, int row, int col, int n) {
    switch (input.access) {
        case ACCESS_FULL: return load_quad(element(input.ptr, input.stride, row, col), n);
        case ACCESS_ROW: return load_quad(input.ptr + col, n);
        case ACCESS_COL: return splat(*element(input.ptr, input.stride, row, 0));
        default: return splat(*input.ptr);
    }
}

__device__ __forceinline__ float control_value(const StepValues& s, u32 field) {
    // No index that is known at run time alone: the numbers stay in registers.
    switch (field) {
        case 0: return s.schedules[0];
        case 1: return s.schedules[1];
        case 2: return s.schedules[2];
        case 3: return s.schedules[3];
        default: return static_cast<float>(s.step);
    }
}

// Slot `pc` of the program as one word: one load, where a copy of the struct would be a load for each part.
template <class AnyProgram>
__device__ __forceinline__ u64 fetch(const AnyProgram& p, int pc) {
    u64 word;
    __builtin_memcpy(&word, &p.code[pc], sizeof word);
    return word;
}

__device__ __forceinline__ Instr decode(u64 word) {
    return {static_cast<u8>(word), static_cast<u8>(word >> 8), static_cast<u8>(word >> 16), static_cast<u8>(word >> 24),
            static_cast<u32>(word >> 32)};
}

// Executes slots from … to − 1. A place (row, col, n) and `acc` mean something for N = 4 only.
template <int N, class AnyProgram>
__device__ __forceinline__ void program_run(const AnyProgram& p, int from, int to, const StepValues& s, QuadRegs regs,
                                            int row, int col, int n, float4 acc) {
    for (int pc = from; pc < to; pc++) {
        const Instr i = decode(fetch(p, pc));
        switch (i.op) {
            case OP_ACC:
                regs.base[i.dst * regs.stride] = acc;
                break;
            case OP_LOAD:
                if constexpr (N == 4) regs.base[i.dst * regs.stride] = load_operand(p.inputs[i.imm], row, col, n);
                else regs.base[i.dst * regs.stride] = splat(*p.inputs[i.imm].ptr);
                break;
            case OP_CONST:
                regs.base[i.dst * regs.stride] = splat(__uint_as_float(i.imm));
                break;
            case OP_CTL:
                regs.base[i.dst * regs.stride] = splat(control_value(s, i.imm));
                break;
            case OP_NORMAL:
            case OP_UNIFORM:
                if constexpr (N == 4) {
                    const u64 first = static_cast<u64>(row) * p.cols + col;
                    const Draw draw = {s.seed, s.step, i.imm};
                    regs.base[i.dst * regs.stride] = draw_quad(draw, i.op == OP_NORMAL, first, n);
                }
                break;
            case OP_POW: {
                const double c = __longlong_as_double(static_cast<long long>(fetch(p, ++pc)));
                const float* a = &regs.base[i.a * regs.stride].x;
                float* y = &regs.base[i.dst * regs.stride].x;
                // Not unrolled: four lanes of f64 arithmetic at a time would need more registers than all the rest.
#pragma unroll 1
                for (int l = 0; l < 4; l++) y[l] = math::pow(a[l], c).v;
                break;
            }
            case OP_SELECT: {
                const Lanes<N> q = read_register<N>(regs, i.imm);
                const Lanes<N> a = read_register<N>(regs, i.a), b = read_register<N>(regs, i.b);
                Lanes<N> y;
#pragma unroll
                for (int l = 0; l < N; l++) y.v[l] = math::select(q.v[l] != 0.0f, a.v[l], b.v[l]);
                write_register<N>(regs, i.dst, y);
                break;
            }
            case OP_SOFTPLUS_SIGMOID: {
                const Lanes<N> a = read_register<N>(regs, i.a);
                Lanes<N> softplus, sigmoid;
#pragma unroll
                for (int l = 0; l < N; l++) {
                    const f32 e = scalar::exp_minus_abs(a.v[l]);
                    softplus.v[l] = scalar::softplus_of_exp(a.v[l], e);
                    sigmoid.v[l] = scalar::sigmoid_of_exp(a.v[l], e);
                }
                write_register<N>(regs, i.dst, softplus);
                write_register<N>(regs, i.b, sigmoid);
                break;
            }
#define ELBO_CASE(name, value)                                           \
    case OP_UNARY + int(UNARY_##name):                                   \
        map_register<N>(regs, i, [](f32 x) { return scalar::name(x); }); \
        break;
                ELBO_SCALAR_FUNCTIONS(ELBO_CASE)
#undef ELBO_CASE
#define ELBO_CASE(name, value)                                                      \
    case OP_BINARY + int(BINARY_##name):                                            \
        zip_registers<N>(regs, i, [](f32 a, f32 b) { return scalar::name(a, b); }); \
        break;
                ELBO_BINARY_FUNCTIONS(ELBO_CASE)
#undef ELBO_CASE
        }
    }
}

// Fills this thread's registers that hold the same value everywhere. Once, before program_quad.
template <class AnyProgram>
__device__ __forceinline__ void program_uniform(const AnyProgram& p, const StepValues& s, QuadRegs regs) {
    program_run<1>(p, 0, p.uniform_len, s, regs, 0, 0, 0, splat(0.0f));
}

// Runs the body on columns col … col + n − 1 of a row, 1 ≤ n ≤ 4: stores the outputs of kind 0, and adds the k-th
// output of kind 1 to sums[k], lanes in order.
template <class AnyProgram>
__device__ __forceinline__ void program_quad(const AnyProgram& p, const StepValues& s, QuadRegs regs, int row, int col,
                                             int n, float4 acc, float (&sums)[MAX_SUMS]) {
    program_run<4>(p, p.uniform_len, p.uniform_len + p.body_len, s, regs, row, col, n, acc);
    int sum = 0;
    for (int o = 0; o < p.outputs_len; o++) {
        const Output& output = p.outputs[o];
        const float4 v = regs.base[output.reg * regs.stride];
        if (output.kind == 0) {
            store_quad(element(output.ptr, output.stride, row, col), v, n);
            continue;
        }
        // `sums` stays in registers: every index into it is a constant.
#pragma unroll
        for (int k = 0; k < MAX_SUMS; k++) {
            if (k != sum) continue;
            sums[k] += v.x;
            if (n > 1) sums[k] += v.y;
            if (n > 2) sums[k] += v.z;
            if (n > 3) sums[k] += v.w;
        }
        sum++;
    }
}

// Writes the block's sums to element `block` of the outputs of kind 1, folded over threads in a fixed order. All
// threads call it, whole warps of them. `shared` holds `threads` floats and may be the register file.
template <class AnyProgram>
__device__ __forceinline__ void program_sums(const AnyProgram& p, const float (&sums)[MAX_SUMS], float* shared, int thread,
                                             int threads, int block) {
    if (p.sums == 0) return;
    const int warps = threads / 32;
    __syncthreads();
#pragma unroll
    for (int k = 0; k < MAX_SUMS; k++) {
        if (k >= p.sums) continue;
        const float v = fold_warp(sums[k], Sum());
        if (thread % 32 == 0) shared[k * warps + thread / 32] = v;
    }
    __syncthreads();
    if (thread != 0) return;
    int k = 0;
    for (int o = 0; o < p.outputs_len; o++) {
        if (p.outputs[o].kind == 0) continue;
        float total = shared[k * warps];
        for (int warp = 1; warp < warps; warp++) total += shared[k * warps + warp];
        p.outputs[o].ptr[block] = total;
        k++;
    }
}
