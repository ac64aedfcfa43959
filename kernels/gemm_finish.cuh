// What a matrix product does with its sums: slices and splits of k are added up in index order, then the elements are
// stored, go through an epilogue, or update the parameters of which they are the gradients. No step depends on which
// block or thread comes first, so neither do the bits.
#pragma once
#include "epilogue.cuh"
#include "gemm_tile.cuh"
#include "update.cuh"

// The elements that a thread finishes: quads of four neighbouring columns. `Sums` says where they lie in the tile.
//
// Without slices they are the thread's own sums. With slices the sums go through shared memory, and the quads of the
// tile are dealt out again, in order, to all threads.
template <class T, class Sums>
struct Quads {
    static constexpr bool SLICED = T::SLICES > 1;
    static constexpr int COUNT = T::ROWS * T::COLS / 4 / T::THREADS;
    float4 quad[COUNT];

    static __device__ __forceinline__ int row(int q) {
        return SLICED ? (q * T::THREADS + static_cast<int>(threadIdx.x)) / (T::COLS / 4) : Sums::row(q);
    }
    static __device__ __forceinline__ int col(int q) {
        return SLICED ? (q * T::THREADS + static_cast<int>(threadIdx.x)) % (T::COLS / 4) * 4 : Sums::col(q);
    }

    __device__ __forceinline__ Quads(const Sums& sums, float* shared) {
        if (!SLICED) {
#pragma unroll
            for (int q = 0; q < COUNT; ++q) quad[q] = sums.quad(q);
            return;
        }
        static_assert(!SLICED || T::SUMS <= T::SHARED_FLOATS, "the slices' sums fit");
        float4* tiles = reinterpret_cast<float4*>(shared);  // [SLICES][ROWS][COLS / 4]
        constexpr int TILE = T::ROWS * T::COLS / 4;
        const int slice = threadIdx.x / 32 / (T::WARPS_M * T::WARPS_N);
#pragma unroll
        for (int q = 0; q < Sums::QUADS; ++q) {
            tiles[slice * TILE + Sums::row(q) * (T::COLS / 4) + Sums::col(q) / 4] = sums.quad(q);
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < COUNT; ++q) {
            const int at = q * T::THREADS + threadIdx.x;
            quad[q] = tiles[at];
#pragma unroll
            for (int s = 1; s < T::SLICES; ++s) quad[q] = add(quad[q], tiles[s * TILE + at]);
        }
        __syncthreads();
    }

    static __device__ __forceinline__ float4 add(float4 a, float4 b) {
        return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
    }

    // Quad q goes to the place of quad q − BY, and the first BY quads to the last places: so a loop that is not unrolled comes to
    // all quads, since registers can be moved but not indexed.
    template <int BY>
    __device__ __forceinline__ void rotate() {
        float4 first[BY];
#pragma unroll
        for (int q = 0; q < BY; ++q) first[q] = quad[q];
#pragma unroll
        for (int q = 0; q < COUNT - BY; ++q) quad[q] = quad[q + BY];
#pragma unroll
        for (int q = 0; q < BY; ++q) quad[COUNT - BY + q] = first[q];
    }
};

// Where a quad stands in C, and how many of its lanes are inside: 0 … 4.
struct Place {
    int row, col, n;
};

template <class T, class Q>
__device__ __forceinline__ Place place_of(const GemmParams& p, int q) {
    const int row = tile_m_of(p) * T::ROWS + Q::row(q), col = blockIdx.x * T::COLS + Q::col(q);
    return {row, col, row < p.m && col < p.n ? lanes_from(col, p.n) : 0};
}

// Quads of C's shape, from and to memory. `whole`: they have four lanes or none, and move as one access.
template <int N>
__device__ __forceinline__ void load_quads(float4 (&v)[N], const Place (&at)[N], const float* from, int stride, bool whole) {
    if (whole) {
#pragma unroll
        for (int q = 0; q < N; ++q) {
            if (at[q].n > 0) v[q] = *reinterpret_cast<const float4*>(element(from, stride, at[q].row, at[q].col));
        }
    } else {
#pragma unroll
        for (int q = 0; q < N; ++q) v[q] = load_quad(element(from, stride, at[q].row, at[q].col), at[q].n);
    }
}

template <int N>
__device__ __forceinline__ void store_quads(const float4 (&v)[N], const Place (&at)[N], float* to, int stride, bool whole) {
    if (whole) {
#pragma unroll
        for (int q = 0; q < N; ++q) {
            if (at[q].n > 0) *reinterpret_cast<float4*>(element(to, stride, at[q].row, at[q].col)) = v[q];
        }
    } else {
#pragma unroll
        for (int q = 0; q < N; ++q) store_quad(element(to, stride, at[q].row, at[q].col), v[q], at[q].n);
    }
}

// The quads as a plane of bf16 (planes.cuh). Rows of C are whole chunks, so quads have four lanes or none.
template <int N>
__device__ __forceinline__ void store_plane(const float4 (&v)[N], const Place (&at)[N], u16* to, int pitch) {
#pragma unroll
    for (int q = 0; q < N; ++q) {
        const u64 words = pack_bf16(v[q].x, v[q].y) | static_cast<u64>(pack_bf16(v[q].z, v[q].w)) << 32;
        if (at[q].n > 0) *reinterpret_cast<u64*>(to + static_cast<long long>(at[q].row) * pitch + at[q].col) = words;
    }
}

// Adds the splits of k up. Every block of a tile leaves its sums in the workspace and draws a ticket; the one that draws
// the last sums all of them, its own included, in the order of the splits. Returns whether this block is the one.
template <class T, class Q>
__device__ __forceinline__ bool join_splits(const GemmParams& p, Q& quads, float& col_sum, float* shared) {
    const int split = split_of(p), tile_m = tile_m_of(p);
    const int tiles = gridDim.x * p.tiles_m, tile = tile_m * gridDim.x + blockIdx.x;
    const int column = blockIdx.x * T::COLS + threadIdx.x;
    const bool sums_column = p.col_sums.there() && tile_m == 0 && threadIdx.x < T::COLS && column < p.n;
    float4* const workspace = reinterpret_cast<float4*>(static_cast<float*>(p.workspace));
    float* const columns = p.workspace + static_cast<long long>(p.splits) * tiles * T::ROWS * T::COLS;
    const auto at = [&](int split, int q) {  // [splits][tiles][COUNT][THREADS]
        return ((static_cast<long long>(split) * tiles + tile) * Q::COUNT + q) * T::THREADS + threadIdx.x;
    };

#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) workspace[at(split, q)] = quads.quad[q];
    if (sums_column) columns[static_cast<long long>(split) * p.n + column] = col_sum;
    __threadfence();
    __syncthreads();
    u32* const last = reinterpret_cast<u32*>(shared);
    if (threadIdx.x == 0) {
        *last = atomicAdd(&p.tickets[tile], 1u) + 1u == static_cast<u32>(p.splits);
        if (*last) p.tickets[tile] = 0;
    }
    __syncthreads();
    const bool is_last = *last != 0;
    __syncthreads();  // the shared memory is free again
    if (!is_last) return false;
    __threadfence();

#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) quads.quad[q] = workspace[at(0, q)];
    if (sums_column) col_sum = columns[column];
#pragma unroll 1
    for (int s = 1; s < p.splits; ++s) {
#pragma unroll
        for (int q = 0; q < Q::COUNT; ++q) quads.quad[q] = Q::add(quads.quad[q], workspace[at(s, q)]);
        if (sums_column) col_sum = __fadd_rn(col_sum, columns[static_cast<long long>(s) * p.n + column]);
    }
    return true;
}

// Whether a kernel can interpret programs. An interpreter beside 64 sums leaves no room for either in the registers, so
// the kernels with the largest tiles have the hand-written epilogues only, and the host takes a smaller tile for others.
template <class T>
constexpr bool INTERPRETS = T::ROWS * T::COLS / T::THREADS <= 32;

// Runs the program on every quad: a loop that is not unrolled, since an interpreter is large.
//
// The interpreter's registers lie in shared memory, 16 bytes for each thread and register. When that is too much for all
// threads at once, they take turns. The quads, at most eight, stay in registers: in shared memory they would take the room of
// as many registers of the program, and with it turns. Registers cannot be indexed, so quad q is picked by comparing, which is
// little beside a program. (Moving all quads on by one place instead makes ptxas keep less through the main loop.)
template <class T, class Q>
__device__ __forceinline__ void interpret(const GemmParams& p, const Q& quads, float (&sums)[MAX_SUMS], float* shared) {
    const int thread = threadIdx.x;
    int group = T::THREADS;  // threads of one turn
    while (group > 32 && group * p.program.regs * 4 > T::SHARED_FLOATS) group /= 2;
    const QuadRegs regs{reinterpret_cast<float4*>(shared) + thread % group, group};
    const StepValues* const values = p.clock.table + p.clock.ctl->now;
#pragma unroll 1
    for (int turn = 0; turn < T::THREADS / group; ++turn) {
        if (thread / group == turn) {
            program_uniform(p.program, *values, regs);
#pragma unroll 1
            for (int q = 0; q < Q::COUNT; ++q) {
                const Place at = place_of<T, Q>(p, q);
                float4 s = quads.quad[0];
#pragma unroll
                for (int i = 1; i < Q::COUNT; ++i) s = q == i ? quads.quad[i] : s;
                if (at.n > 0) program_quad(p.program, *values, regs, at.row, at.col, at.n, s, sums);
            }
        }
        __syncthreads();
    }
}

// The most of `count` quads a thread that fit `room`: all, or the half, or the half of that.
constexpr int most_of(int count, int room) { return count <= room ? count : most_of(count / 2, room); }

// Quads of a thread in shared memory at a time: parked[q · THREADS] for every thread. No thread reads another's.
template <class T, class Q>
constexpr int PARKED = most_of(Q::COUNT, T::SHARED_FLOATS / 4 / T::THREADS);

// Runs a hand-written epilogue on the parked quads, which are quads first … first + PARKED − 1 of the thread, SOME of them at a
// time, so that their operands are on their way together. `whole`: operands and output consist of whole quads.
template <class T, class Q, int SOME, class Epilogue>
__device__ __forceinline__ void run_some(const GemmParams& p, const float4* parked, int first, bool whole, float& sum,
                                         const Epilogue& epilogue) {
#pragma unroll 1
    for (int q0 = 0; q0 < PARKED<T, Q>; q0 += SOME) {
        Place at[SOME];
        float4 x[SOME], b[SOME];
#pragma unroll
        for (int q = 0; q < SOME; ++q) {
            at[q] = place_of<T, Q>(p, first + q0 + q);
            x[q] = b[q] = splat(0.0f);
        }
        if constexpr (Epilogue::FULL != NO_OPERAND) {
            const Input& full = p.program.inputs[Epilogue::FULL];
            load_quads(x, at, full.ptr, full.stride, whole);
        }
        if constexpr (Epilogue::ROW != NO_OPERAND) load_quads(b, at, p.program.inputs[Epilogue::ROW].ptr, 0, whole);
#pragma unroll
        for (int q = 0; q < SOME; ++q) {
            if (!Epilogue::LONG || at[q].n > 0) x[q] = epilogue(parked[(q0 + q) * T::THREADS], x[q], b[q], at[q].n, sum);
        }
        store_quads(x, at, p.program.outputs[0].ptr, p.program.outputs[0].stride, whole);
        if (p.out_plane.there()) store_plane(x, at, p.out_plane, p.out_pitch);
    }
}

// Operands that fit badly, with lanes one by one, are read for one quad at a time: the more there is of such code, the less
// ptxas keeps in registers through the main loop.
template <class T, class Q, class Epilogue>
__device__ __forceinline__ void run_parked(const GemmParams& p, const float4* parked, int first, float& sum,
                                           const Epilogue& epilogue) {
    const Output& out = p.program.outputs[0];
    bool whole = whole_quads(out.ptr, out.stride, p.n);
    if constexpr (Epilogue::ROW != NO_OPERAND) whole = whole && aligned16(p.program.inputs[Epilogue::ROW].ptr);
    if constexpr (Epilogue::FULL != NO_OPERAND) {
        const Input& full = p.program.inputs[Epilogue::FULL];
        whole = whole && whole_quads(full.ptr, full.stride, p.n);
    }
    if constexpr (Epilogue::LONG || PARKED<T, Q> < 4) {
        run_some<T, Q, 1>(p, parked, first, whole, sum, epilogue);
    } else if (whole) {
        run_some<T, Q, 4>(p, parked, first, true, sum, epilogue);
    } else {
        run_some<T, Q, 1>(p, parked, first, false, sum, epilogue);
    }
}

// Calls run(parked, first) for the thread's quads from `first` on, as many as fit into shared memory at a time: there they can be
// indexed, in registers not.
template <class T, class Q, class Run>
__device__ __forceinline__ void in_portions(Q& quads, float* shared, Run run) {
    float4* const parked = reinterpret_cast<float4*>(shared) + threadIdx.x;
#pragma unroll 1
    for (int first = 0; first < Q::COUNT; first += PARKED<T, Q>) {
#pragma unroll
        for (int q = 0; q < PARKED<T, Q>; ++q) parked[q * T::THREADS] = quads.quad[q];
        quads.template rotate<PARKED<T, Q>>();
        run(parked, first);
    }
}

// The switch stands outside the loop over quads.
template <class T, class Q>
__device__ __forceinline__ void hand_written(const GemmParams& p, Q& quads, float& sum, float* shared) {
    in_portions<T>(quads, shared, [&](const float4* parked, int first) {
        switch (p.epilogue) {
            case EPILOGUE_BIAS: run_parked<T, Q>(p, parked, first, sum, Bias()); break;
            case EPILOGUE_BIAS_RELU: run_parked<T, Q>(p, parked, first, sum, BiasRelu()); break;
            case EPILOGUE_BIAS_TANH: run_parked<T, Q>(p, parked, first, sum, BiasTanh()); break;
            case EPILOGUE_RELU_BACKWARD: run_parked<T, Q>(p, parked, first, sum, ReluBackward()); break;
            case EPILOGUE_TANH_BACKWARD: run_parked<T, Q>(p, parked, first, sum, TanhBackward()); break;
            case EPILOGUE_BERNOULLI: run_parked<T, Q>(p, parked, first, sum, Bernoulli(p.program)); break;
        }
    });
}

// Calls each(row, col, n, quad) for the thread's quads with lanes inside of C, n of them: a loop that is not unrolled.
template <class T, class Q, class Each>
__device__ __forceinline__ void each_quad(const GemmParams& p, Q& quads, float* shared, Each each) {
    in_portions<T>(quads, shared, [&](const float4* parked, int first) {
#pragma unroll 1
        for (int q = 0; q < PARKED<T, Q>; ++q) {
            const Place at = place_of<T, Q>(p, first + q);
            if (at.n > 0) each(at.row, at.col, at.n, parked[q * T::THREADS]);
        }
    });
}

// Updates the parameters of which the sums are the gradients: C and, where it rides along, its column sums.
template <class T, class Q>
__device__ __forceinline__ void update_parameters(const GemmParams& p, Q& quads, float col_sum, float* shared) {
    const Update update(p.clock, p.by, 1.0f);
    const bool is_adam = p.by.rule == 0;
    if (p.of_col_sums.p.there() && tile_m_of(p) == 0) {
        const int column = blockIdx.x * T::COLS + threadIdx.x;
        const float4 g = splat(col_sum);
        if (threadIdx.x < T::COLS && column < p.n) {
            if (is_adam) update.adam_quad(p.of_col_sums, column, g, 1);
            else update.sgd_quad(p.of_col_sums, column, g, 1);
        }
    }
    each_quad<T>(p, quads, shared, [&](int row, int col, int n, float4 g) {
        const u64 at = static_cast<u64>(row) * p.ldc + col;
        if (is_adam) update.adam_quad(p.of_c, at, g, n);
        else update.sgd_quad(p.of_c, at, g, n);
    });
}

// From the sums of the main loop to memory: as they are, by a hand-written epilogue, or by a program.
template <class T, class Sums>
__device__ __forceinline__ void finish(const GemmParams& p, const Sums& sums, float col_sum, float* shared) {
    using Q = Quads<T, Sums>;
    Q quads(sums, shared);
    if (p.splits > 1 && !p.apart && !join_splits<T>(p, quads, col_sum, shared)) return;
    if (p.col_sums.there() && !p.of_col_sums.p.there() && tile_m_of(p) == 0) {
        const int column = blockIdx.x * T::COLS + threadIdx.x;
        if (threadIdx.x < T::COLS && column < p.n) p.col_sums[column] = col_sum;
    }
#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) {
        float4& s = quads.quad[q];
        s = make_float4(__fmul_rn(p.alpha, s.x), __fmul_rn(p.alpha, s.y), __fmul_rn(p.alpha, s.z),
                        __fmul_rn(p.alpha, s.w));
    }
    if (p.of_c.p.there()) return update_parameters<T>(p, quads, col_sum, shared);
    if (p.c.there()) {
        Place at[Q::COUNT];
#pragma unroll
        for (int q = 0; q < Q::COUNT; ++q) at[q] = place_of<T, Q>(p, q);
        float* const c = p.apart ? p.c + static_cast<long long>(split_of(p)) * p.m * p.ldc : p.c;
        return store_quads(quads.quad, at, c, p.ldc, whole_quads(c, p.ldc, p.n));
    }
    float program_sum[MAX_SUMS] = {};
    if (INTERPRETS<T> && p.epilogue == EPILOGUE_PROGRAM) interpret<T>(p, quads, program_sum, shared);
    else hand_written<T>(p, quads, program_sum[0], shared);
    program_sums(p.program, program_sum, shared, threadIdx.x, T::THREADS, blockIdx.x + gridDim.x * tile_m_of(p));
}

// A whole product: what every kernel consists of.
template <class T, class Sums>
__device__ __forceinline__ void multiply_matrices(const GemmParams& p, float* shared) {
    begin_launch();
    const Part part = part_of<T>(p);
    Sums sums;
    sums.clear();
    float col_sum = 0.f;
    const bool sums_columns = p.col_sums.there() && tile_m_of(p) == 0 && threadIdx.x < T::COLS;
    along_k<T>(p, part, shared, [&](const float* a, const float* b) {
        if (sums_columns) {
#pragma unroll 4
            for (int k = 0; k < T::DEPTH; ++k) col_sum = __fadd_rn(col_sum, b[T::B::at(k, threadIdx.x, p.tb)]);
        }
        sums.multiply(a, b, !p.ta, p.tb);
    });
    finish<T>(p, sums, col_sum, shared);
    end_step(p.clock, p.end);
}
