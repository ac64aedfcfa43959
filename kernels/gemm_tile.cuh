// What all matrix products share on their way in: how a block cuts C, and how tiles of A and B reach shared memory.
//
//   C[m, n] = alpha · op(A) · op(B)          op(A): [m, k], op(B): [k, n], row-major, any leading dimensions
//
// Read in this order: this file, gemm_simt.cuh (the arithmetic in f32), gemm_tensor.cuh (on tensor cores), gemm_planes.cuh
// (there, of factors in bf16), gemm_finish.cuh (what happens to the sums), and the kernels in gemm*.cu. kernels/dev/ arrives at the
// same design step by step and is the place to begin for a reader who writes their first matrix product.
//
// A block computes one tile of C, ROWS × COLS. It walks along k in strips of DEPTH: while it multiplies one pair of
// strips, the copies of the next STAGES − 1 pairs are on their way. gridDim.x counts tiles along n, gridDim.y along m,
// once for every split of k.
//
// The ordinary arithmetic wants strips in shared memory with k as the slow index, [DEPTH][ROWS] and [DEPTH][COLS], however
// the operands are stored. Where memory has k as the fast index the copy transposes, 4 bytes at a time, which costs
// instructions but no registers. Tensor cores do so much more in an instruction that this would be felt; for them a strip
// keeps the order it has in memory. All other copies move 16 bytes at a time if pointer and leading dimension allow.
// Elements outside the matrices are zeros, which add nothing to a sum.
#pragma once
#include "params.cuh"
#include "ptx.cuh"

// Where element (k, r) of a strip lies, if its operand has k as the fast index in memory, and if not.

// For the ordinary arithmetic: four idle floats after each row. Then the lanes of a warp hit different banks when they
// transpose (8 neighbours in k × 4 in r) and when they read groups of four neighbours in r at one k.
template <int R>
struct Padded {
    static constexpr int R_LEN = R, PITCH = R + 4;
    static constexpr bool KEEPS_ORDER = false;
    static __device__ __forceinline__ int at(int k, int r, bool) { return k * PITCH + r; }
};

// For tensor cores, whose lanes read, with g = lane / 4 and t = lane mod 4, groups of four at r = 4g and k = 4t + i, or at
// r = 4g + i and k = 4t. In both orders the groups change places, so that eight neighbouring lanes hit all banks once.
template <int R>
struct Swizzled {
    static constexpr int R_LEN = R, PITCH = R;
    static constexpr bool KEEPS_ORDER = true;
    static __device__ __forceinline__ int at(int k, int r, bool k_fast) {
        // [k][r], groups permuted within 32; or [k / 16][r][16 of k], pairs of rows swapped where bit 2 of r is set.
        return k_fast ? k / 16 * 16 * R + ((r ^ (r >> 2 & 1)) * 16) + k % 16
                      : k * R + (r ^ ((k & 7) ^ (k >> 2 & 2)) << 2);
    }
};

// One operand of a product: element (k, r) with r < r_len is ptr[k · ld + r], or ptr[r · ld + k] where k is fast.
struct Operand {
    const float* ptr;
    int ld, r_len;
    bool k_fast;
    bool aligned;  // rows begin at multiples of 16 bytes

    __device__ Operand(const float* ptr, int ld, int r_len, bool k_fast)
        : ptr(ptr), ld(ld), r_len(r_len), k_fast(k_fast),
          aligned(reinterpret_cast<u64>(ptr) % 16 == 0 && ld % 4 == 0) {}
};

// Starts the copy of from[offset …], four neighbours of which `left` are inside the matrix.
__device__ __forceinline__ void copy_four(float* to, const float* from, int offset, int left, bool aligned) {
    if (aligned && (left >= 4 || left <= 0)) {
        cp_async16(to, from + (left > 0 ? offset : 0), left > 0);
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) cp_async4(to + j, from + (j < left ? offset + j : 0), j < left);
    }
}

// Starts the copies of strip [k0, k0 + DEPTH) × [r0, r0 + R); k ends at k_end. Inside a strip 32-bit offsets suffice.
template <class Layout, int DEPTH, int THREADS>
__device__ __forceinline__ void stage(float* strip, const Operand& x, int k0, int k_end, int r0) {
    constexpr int R = Layout::R_LEN;
    const int thread = threadIdx.x;
    const int k_len = k_end - k0, r_len = x.r_len - r0;
    const float* const from = x.ptr + (x.k_fast ? static_cast<long long>(r0) * x.ld + k0
                                                : static_cast<long long>(k0) * x.ld + r0);
    if (x.k_fast && Layout::KEEPS_ORDER) {
        static_assert(R * DEPTH / 4 % THREADS == 0, "every thread copies equally many groups of four");
#pragma unroll
        for (int i = 0; i < R * DEPTH / 4 / THREADS; ++i) {
            const int e = i * THREADS + thread;
            const int r = e / (DEPTH / 4), k = e % (DEPTH / 4) * 4;
            copy_four(strip + Layout::at(k, r, true), from, r * x.ld + k, r < r_len ? k_len - k : 0, x.aligned);
        }
    } else if (x.k_fast) {
        static_assert(R * DEPTH % THREADS == 0 && DEPTH % 8 == 0, "every thread copies equally many elements");
#pragma unroll 2  // more would keep the addresses of all copies in registers
        for (int i = 0; i < R * DEPTH / THREADS; ++i) {
            const int e = i * THREADS + thread, patch = e / 32;  // a warp copies a patch of 8 in k by 4 in r
            const int k = patch % (DEPTH / 8) * 8 + e % 8, r = patch / (DEPTH / 8) * 4 + e / 8 % 4;
            const bool valid = r < r_len && k < k_len;
            cp_async4(strip + Layout::at(k, r, false), from + (valid ? r * x.ld + k : 0), valid);
        }
    } else {
        static_assert(R * DEPTH / 4 % THREADS == 0, "every thread copies equally many groups of four");
#pragma unroll
        for (int i = 0; i < R * DEPTH / 4 / THREADS; ++i) {
            const int e = i * THREADS + thread;
            const int k = e / (R / 4), r = e % (R / 4) * 4;
            copy_four(strip + Layout::at(k, r, false), from, k * x.ld + r, k < k_len ? r_len - r : 0, x.aligned);
        }
    }
}

// The shape of a block's work. The block's warps are WARPS_M × WARPS_N × SLICES; a warp owns WARP_M × WARP_N sums and
// adds up its slice of every strip. Small tiles are sliced so that a block has enough warps to hide latency.
template <template <int> class Layout_, int ROWS_, int COLS_, int WARP_M_, int WARP_N_, int SLICES_, int DEPTH_,
          int STAGES_>
struct Tile {
    template <int R>
    using Layout = Layout_<R>;
    static constexpr int ROWS = ROWS_, COLS = COLS_, WARP_M = WARP_M_, WARP_N = WARP_N_, SLICES = SLICES_;
    static constexpr int WARPS_M = ROWS / WARP_M, WARPS_N = COLS / WARP_N;
    static constexpr int WARPS = WARPS_M * WARPS_N * SLICES, THREADS = 32 * WARPS;
    static constexpr int DEPTH = DEPTH_, SLICE_DEPTH = DEPTH / SLICES;
#ifdef ELBO_BEFORE_SM80
    static constexpr int STAGES = 2;  // nothing is asynchronous
#else
    static constexpr int STAGES = STAGES_;
#endif
    using A = Layout<ROWS>;
    using B = Layout<COLS>;
    static constexpr int A_FLOATS = DEPTH * A::PITCH, B_FLOATS = DEPTH * B::PITCH;
    static constexpr int STAGE_FLOATS = A_FLOATS + B_FLOATS;
    // Of the strips, or of the slices' sums after them; src/engine/steps/gemm/cuda.rs computes the same.
    static constexpr int STRIPS = STAGES * STAGE_FLOATS, SUMS = SLICES > 1 ? SLICES * ROWS * COLS : 0;
    static constexpr int SHARED_FLOATS = STRIPS > SUMS ? STRIPS : SUMS;
    static_assert(SHARED_FLOATS * 4 <= 48 * 1024, "more shared memory needs the consent of the driver");
};

// Which split of k is a block's, and which tile along m.
__device__ __forceinline__ int split_of(const GemmParams& p) { return p.splits > 1 ? blockIdx.y / p.tiles_m : 0; }
__device__ __forceinline__ int tile_m_of(const GemmParams& p) { return blockIdx.y - split_of(p) * p.tiles_m; }

// What part of the product a block computes. k_per_split is a multiple of DEPTH, so that strips begin aligned.
struct Part {
    int row0, col0, k_begin, k_end;
};

template <class T>
__device__ __forceinline__ Part part_of(const GemmParams& p) {
    const int k_begin = split_of(p) * p.k_per_split;
    return {tile_m_of(p) * T::ROWS, static_cast<int>(blockIdx.x) * T::COLS, k_begin,
            min(p.k, k_begin + p.k_per_split)};
}

// Calls multiply(s) for the strips in order, STAGES − 1 strips after start(s), which starts the copies of strip s to place s mod STAGES.
// Afterwards the shared memory is free for other use.
template <class T, class Start, class Multiply>
__device__ __forceinline__ void along_strips(const Part& part, const Start& start, const Multiply& multiply) {
    const int strips = (part.k_end - part.k_begin + T::DEPTH - 1) / T::DEPTH;
    const auto start_if_any = [&](int s) {
        if (s < strips) start(s);
        cp_async_commit();  // also when empty: the count of groups below stays right
    };
#pragma unroll
    for (int s = 0; s < T::STAGES - 1; ++s) start_if_any(s);
#pragma unroll 1
    for (int s = 0; s < strips; ++s) {
        cp_async_wait<T::STAGES - 2>();
        __syncthreads();  // strip s has arrived for all, and all are done with strip s − 1, whose place is filled next
        start_if_any(s + T::STAGES - 1);
        multiply(s);
    }
    cp_async_wait<0>();
    __syncthreads();
}

// sums += A · B over a pair of strips, by sums.steps, for which the orders of the strips are constants, so that every read is one
// instruction.
template <class Sums, class Number>
__device__ __forceinline__ void multiply_strips(Sums& sums, const Number* a, const Number* b, bool a_k_fast, bool b_k_fast) {
    if (a_k_fast) {
        if (b_k_fast) sums.template steps<true, true>(a, b);
        else sums.template steps<true, false>(a, b);
    } else {
        if (b_k_fast) sums.template steps<false, true>(a, b);
        else sums.template steps<false, false>(a, b);
    }
}

// Calls multiply(strip of A, strip of B) for the strips in order.
template <class T, class Multiply>
__device__ __forceinline__ void along_k(const GemmParams& p, const Part& part, float* shared, Multiply multiply) {
    const Operand a(p.a, p.lda, p.m, !p.ta), b(p.b, p.ldb, p.n, p.tb);
    const auto start = [&](int s) {
        float* to = shared + s % T::STAGES * T::STAGE_FLOATS;
        const int k0 = part.k_begin + s * T::DEPTH;
        stage<typename T::A, T::DEPTH, T::THREADS>(to, a, k0, part.k_end, part.row0);
        stage<typename T::B, T::DEPTH, T::THREADS>(to + T::A_FLOATS, b, k0, part.k_end, part.col0);
    };
    along_strips<T>(part, start, [&](int s) {
        const float* strip = shared + s % T::STAGES * T::STAGE_FLOATS;
        multiply(strip, strip + T::A_FLOATS);
    });
}
