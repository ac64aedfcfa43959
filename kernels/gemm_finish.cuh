// What a matrix product does with its sums: slices and splits of k are added up in index order, then the elements are
// stored, go through an epilogue, or update the parameters of which they are the gradients. No step depends on which block or thread comes first, so neither do the bits.
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
        static_assert(!SLICED || T::SLICES * T::ROWS * T::COLS <= T::SHARED_FLOATS, "the slices' sums fit");
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
};

// Adds the splits of k up. Every block of a tile leaves its sums in the workspace and draws a ticket; the one that draws
// the last sums all of them, its own included, in the order of the splits. Returns whether this block is the one.
template <class T, class Q>
__device__ __forceinline__ bool join_splits(const GemmParams& p, Q& quads, float& col_sum, float* shared) {
    const int tiles = gridDim.x * gridDim.y, tile = blockIdx.y * gridDim.x + blockIdx.x;
    const int column = blockIdx.x * T::COLS + threadIdx.x;
    const bool sums_column = p.col_sums != nullptr && blockIdx.y == 0 && threadIdx.x < T::COLS && column < p.n;
    float4* const workspace = reinterpret_cast<float4*>(p.workspace);
    float* const columns = p.workspace + static_cast<long long>(p.splits) * tiles * T::ROWS * T::COLS;
    const auto at = [&](int split, int q) {  // [splits][tiles][COUNT][THREADS]
        return ((static_cast<long long>(split) * tiles + tile) * Q::COUNT + q) * T::THREADS + threadIdx.x;
    };

#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) workspace[at(blockIdx.z, q)] = quads.quad[q];
    if (sums_column) columns[static_cast<long long>(blockIdx.z) * p.n + column] = col_sum;
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

// Runs the epilogue on every quad. The loop over quads is not unrolled, since an epilogue is large; registers cannot be
// indexed, so quad q is picked by comparing.
//
// The interpreter's registers lie in shared memory, 16 bytes for each thread and register. When that is too much for all
// threads at once, they take turns.
template <class T, class Q>
__device__ __forceinline__ void run_epilogue(const GemmParams& p, const Q& quads, float* shared) {
    const int thread = threadIdx.x;
    const bool interpreted = INTERPRETS<T> && p.epilogue == EPILOGUE_PROGRAM;
    int group = T::THREADS;  // threads of one turn
    if (interpreted) {
        while (group > 32 && group * p.program.regs * 4 > T::SHARED_FLOATS) group /= 2;
    }
    const QuadRegs regs{reinterpret_cast<float4*>(shared) + thread % group, group};
    const StepValues* const values = p.clock.table + (interpreted ? p.clock.ctl->now : 0);
    float sums[MAX_SUMS] = {};
#pragma unroll 1
    for (int turn = 0; turn < T::THREADS / group; ++turn) {
        if (thread / group == turn) {
            if (interpreted) program_uniform(p.program, *values, regs);
#pragma unroll 1
            for (int q = 0; q < Q::COUNT; ++q) {
                const int row = blockIdx.y * T::ROWS + Q::row(q), col = blockIdx.x * T::COLS + Q::col(q);
                float4 s = quads.quad[0];
#pragma unroll
                for (int i = 1; i < Q::COUNT; ++i) s = q == i ? quads.quad[i] : s;
                if (row >= p.m || col >= p.n) continue;
                const int n = lanes_from(col, p.n);
                if (interpreted) {
                    program_quad(p.program, *values, regs, row, col, n, s, sums);
                } else {
                    hand_written(p.epilogue, p.program, row, col, n, s, sums);
                }
            }
        }
        __syncthreads();
    }
    program_sums(p.program, sums, shared, thread, T::THREADS, blockIdx.x + gridDim.x * blockIdx.y);
}

// Updates the parameters of which the sums are the gradients: C and, where it rides along, its column sums.
template <class T, class Q>
__device__ __forceinline__ void update_parameters(const GemmParams& p, const Q& quads, float col_sum) {
    const Update update(p.clock, p.by, nullptr);
    const bool is_adam = p.by.rule == 0;
    if (p.of_col_sums.p != nullptr && blockIdx.y == 0) {
        const int column = blockIdx.x * T::COLS + threadIdx.x;
        const float4 g = splat(col_sum);
        if (threadIdx.x < T::COLS && column < p.n) {
            if (is_adam) update.adam_quad(p.of_col_sums, column, g, 1);
            else update.sgd_quad(p.of_col_sums, column, g, 1);
        }
    }
#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) {
        const int row = blockIdx.y * T::ROWS + Q::row(q), col = blockIdx.x * T::COLS + Q::col(q);
        if (row >= p.m || col >= p.n) continue;
        const u64 at = static_cast<u64>(row) * p.ldc + col;
        if (is_adam) update.adam_quad(p.of_c, at, quads.quad[q], lanes_from(col, p.n));
        else update.sgd_quad(p.of_c, at, quads.quad[q], lanes_from(col, p.n));
    }
}

// From the sums of the main loop to memory.
template <class T, class Sums>
__device__ __forceinline__ void finish(const GemmParams& p, const Sums& sums, float col_sum, float* shared) {
    using Q = Quads<T, Sums>;
    Q quads(sums, shared);
    if (p.splits > 1 && !join_splits<T>(p, quads, col_sum, shared)) return;
    if (p.col_sums != nullptr && p.of_col_sums.p == nullptr && blockIdx.y == 0) {
        const int column = blockIdx.x * T::COLS + threadIdx.x;
        if (threadIdx.x < T::COLS && column < p.n) p.col_sums[column] = col_sum;
    }
#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) {
        float4& s = quads.quad[q];
        s = make_float4(__fmul_rn(p.alpha, s.x), __fmul_rn(p.alpha, s.y), __fmul_rn(p.alpha, s.z),
                        __fmul_rn(p.alpha, s.w));
    }
    if (p.of_c.p != nullptr) return update_parameters<T>(p, quads, col_sum);
    if (p.c == nullptr) return run_epilogue<T>(p, quads, shared);
#pragma unroll
    for (int q = 0; q < Q::COUNT; ++q) {
        const int row = blockIdx.y * T::ROWS + Q::row(q), col = blockIdx.x * T::COLS + Q::col(q);
        if (row < p.m && col < p.n) store_quad(element(p.c, p.ldc, row, col), quads.quad[q], lanes_from(col, p.n));
    }
}

// A whole product: what every kernel consists of.
template <class T, class Sums>
__device__ __forceinline__ void multiply_matrices(const GemmParams& p, float* shared) {
    const Part part = part_of<T>(p);
    Sums sums;
    sums.clear();
    float col_sum = 0.f;
    const bool sums_columns = p.col_sums != nullptr && blockIdx.y == 0 && threadIdx.x < T::COLS;
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
