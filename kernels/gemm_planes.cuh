// The matrix product of planes of bf16 (planes.cuh): large products, whose factors are cut once and not by every block that needs them.
//
// gemm_tensor.cuh reads f32 and rounds it in registers. Here factors come to shared memory as tensor cores want them: half the bytes
// from the second-level cache, which is what large products in bf16 wait for there, half the bytes through shared memory, no
// conversion. ldmatrix brings them to the registers, turned around where memory has the other order:
//
//                        in memory             a strip in shared memory       ldmatrix
//   op(A), k is fast     [m, k]                [ROWS][DEPTH]                  as it is
//          k is slow     [k, m]                [DEPTH][ROWS]                  trans
//   op(B), k is slow     [k, n]                [DEPTH][COLS]                  trans
//          k is fast     [n, k]                [COLS][DEPTH]                  as it is
//
// Four strips of 32 of k are in shared memory, 64 KiB for 128 × 128 and 96 for 256 × 128: a driver gives a block that much on request. Where
// column sums of B ride along, the blocks that make them copy B in f32 as well, 66 KiB more: the sums are those of f32, not of the 8 bits of bf16.
//
// Rung 9 of the ladder (dev/gemm_9_planes.cu, dev/planes.cuh) has the same for one order and without anything after the product.
#pragma once
#include "gemm_finish.cuh"
#include "planes.cuh"

template <int ROWS_, int COLS_, int WARP_M_, int WARP_N_, int SLICES_, int DEPTH_, int STAGES_>
struct PlaneTile {
    static constexpr int ROWS = ROWS_, COLS = COLS_, WARP_M = WARP_M_, WARP_N = WARP_N_, SLICES = SLICES_;
    static constexpr int WARPS_M = ROWS / WARP_M, WARPS_N = COLS / WARP_N, THREADS = 32 * WARPS_M * WARPS_N;
    static constexpr int DEPTH = DEPTH_, STAGES = STAGES_;
    static constexpr int A_NUMBERS = ROWS * DEPTH, STRIP = A_NUMBERS + COLS * DEPTH;
    static constexpr int SHARED_FLOATS = STAGES * STRIP / 2, SUMS = 0;
    // B in f32, behind the strips: for its column sums.
    using Columns = Padded<COLS>;
    static constexpr int COLUMN_FLOATS = DEPTH * Columns::PITCH;
    static_assert(SLICES == 1 && DEPTH == 32, "planes.cuh shows the swizzles of 32 and of 128 and 256 numbers");
};

// A plane: element (k, r) with r < r_len is ptr[k · pitch + r], or ptr[r · pitch + k] where k is fast.
struct Plane {
    const u16* ptr;
    int pitch, r_len;
    bool k_fast;
};

// Starts the copies of strip [k0, k0 + DEPTH) × [r0, r0 + R), of which each row of memory is one of shared memory; k ends at k_end. Chunks
// are whole: what a plane has beyond k or r are zeros.
template <int R, int DEPTH, int THREADS, bool K_FAST>
__device__ __forceinline__ void stage_plane(u16* strip, const Plane& x, int k0, int k_end, int r0) {
    constexpr int CHUNKS = (K_FAST ? DEPTH : R) / 8, COPIES = R * DEPTH / 8 / THREADS;
    static_assert(R * DEPTH / 8 % THREADS == 0, "every thread copies equally many chunks");
    const int row0 = K_FAST ? r0 : k0, col0 = K_FAST ? k0 : r0, rows = K_FAST ? x.r_len : k_end;
    const u16* const from = x.ptr + static_cast<long long>(row0) * x.pitch + col0;
#pragma unroll
    for (int i = 0; i < COPIES; ++i) {
        const int e = i * THREADS + threadIdx.x, row = e / CHUNKS, chunk = e % CHUNKS;
        const bool inside = row0 + row < rows && col0 + chunk * 8 < x.pitch;
        cp_async16(strip + swizzle<CHUNKS>(row, chunk) * 8, inside ? from + row * x.pitch + chunk * 8 : x.ptr, inside);
    }
}

template <int R, int DEPTH, int THREADS>
__device__ __forceinline__ void stage_plane(u16* strip, const Plane& x, int k0, int k_end, int r0) {
    if (x.k_fast) stage_plane<R, DEPTH, THREADS, true>(strip, x, k0, k_end, r0);
    else stage_plane<R, DEPTH, THREADS, false>(strip, x, k0, k_end, r0);
}

// The sums of a warp, in 16 × 8 tiles. With g = lane / 4 and t = lane mod 4 a lane has of each columns 2t and 2t + 1 of rows g and g + 8.
// Quads are made with the neighbour, lane xor 1: who is even takes row g of both, who is odd row g + 8.
template <class T>
struct PlaneSums {
    static constexpr int M = T::WARP_M / 16, N = T::WARP_N / 8, QUADS = M * N;
    float sum[M][N][4];

    static __device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / T::WARPS_N * T::WARP_M; }
    static __device__ __forceinline__ int warp_col() { return threadIdx.x / 32 % T::WARPS_N * T::WARP_N; }

    // Quad q in the tile: which 16 rows, which 8 columns.
    static __device__ __forceinline__ int row(int q) {
        return warp_row() + q / N * 16 + threadIdx.x % 2 * 8 + threadIdx.x % 32 / 4;
    }
    static __device__ __forceinline__ int col(int q) { return warp_col() + q % N * 8 + threadIdx.x % 4 / 2 * 4; }

    // All lanes ask at once.
    __device__ __forceinline__ float4 quad(int q) const {
        const float(&s)[4] = sum[q / N][q % N];
        const bool odd = threadIdx.x % 2 == 1;
        const float x = __shfl_xor_sync(~0u, odd ? s[0] : s[2], 1), y = __shfl_xor_sync(~0u, odd ? s[1] : s[3], 1);
        return odd ? make_float4(x, y, s[2], s[3]) : make_float4(s[0], s[1], x, y);
    }

    __device__ __forceinline__ void clear() {
        float* s = &sum[0][0][0];
#pragma unroll
        for (int i = 0; i < M * N * 4; ++i) s[i] = 0.f;
    }

    __device__ __forceinline__ void multiply(const u16* a, const u16* b, bool a_k_fast, bool b_k_fast) {
        multiply_strips(*this, a, b, a_k_fast, b_k_fast);
    }

    // dev/planes.cuh has a picture of what a lane points to and what it gets.
    template <bool A_K_FAST, bool B_K_FAST>
    __device__ __forceinline__ void steps(const u16* a, const u16* b) {
        constexpr int A_CHUNKS = (A_K_FAST ? T::DEPTH : T::ROWS) / 8, B_CHUNKS = (B_K_FAST ? T::DEPTH : T::COLS) / 8;
        const int lane = threadIdx.x % 32;
        // Of the four matrices that are read at a time, the two that follow each other in one direction, and in the other.
        const int near = lane % 16, far = lane / 16, far_row = lane % 8 + lane / 16 * 8, near_chunk = lane / 8 % 2;
#pragma unroll
        for (int k = 0; k < T::DEPTH; k += 16) {
            u32 right[N][2];
#pragma unroll
            for (int j = 0; j < N / 2; ++j) {
                const int col = warp_col() + 16 * j;
                u32 r[4];
                if (B_K_FAST) ldmatrix_x4(r, b + swizzle<B_CHUNKS>(col + far_row, k / 8 + near_chunk) * 8);
                else ldmatrix_x4_trans(r, b + swizzle<B_CHUNKS>(k + near, col / 8 + far) * 8);
                right[2 * j][0] = r[0], right[2 * j][1] = r[1], right[2 * j + 1][0] = r[2], right[2 * j + 1][1] = r[3];
            }
#pragma unroll
            for (int i = 0; i < M; ++i) {
                const int row = warp_row() + 16 * i;
                u32 left[4];
                if (A_K_FAST) ldmatrix_x4(left, a + swizzle<A_CHUNKS>(row + near, k / 8 + far) * 8);
                else ldmatrix_x4_trans(left, a + swizzle<A_CHUNKS>(k + far_row, row / 8 + near_chunk) * 8);
#pragma unroll
                for (int j = 0; j < N; ++j) mma_m16n8k16_bf16(sum[i][j], left, right[j]);
            }
        }
    }
};

// A whole product.
template <class T>
__device__ __forceinline__ void multiply_planes(const GemmParams& p, float* shared) {
    begin_launch();
    const Part part = part_of<T>(p);
    PlaneSums<T> sums;
    sums.clear();
    float col_sum = 0.f;
    const bool sums_columns = p.col_sums.there() && tile_m_of(p) == 0;
    const Plane a{p.a_plane, p.a_pitch, p.m, !p.ta}, b{p.b_plane, p.b_pitch, p.n, p.tb != 0};
    const Operand columns(p.b, p.ldb, p.n, p.tb);
    const auto strip = [&](int s) { return reinterpret_cast<u16*>(shared) + s % T::STAGES * T::STRIP; };
    const auto column_strip = [&](int s) { return shared + T::SHARED_FLOATS + s % T::STAGES * T::COLUMN_FLOATS; };
    const auto start = [&](int s) {
        const int k0 = part.k_begin + s * T::DEPTH;
        stage_plane<T::ROWS, T::DEPTH, T::THREADS>(strip(s), a, k0, part.k_end, part.row0);
        stage_plane<T::COLS, T::DEPTH, T::THREADS>(strip(s) + T::A_NUMBERS, b, k0, part.k_end, part.col0);
        if (sums_columns) stage<typename T::Columns, T::DEPTH, T::THREADS>(column_strip(s), columns, k0, part.k_end, part.col0);
    };
    along_strips<T>(part, start, [&](int s) {
        if (sums_columns && threadIdx.x < T::COLS) {
#pragma unroll 4
            for (int k = 0; k < T::DEPTH; ++k) {
                col_sum = __fadd_rn(col_sum, column_strip(s)[T::Columns::at(k, threadIdx.x, false)]);
            }
        }
        sums.multiply(strip(s), strip(s) + T::A_NUMBERS, a.k_fast, b.k_fast);
    });
    finish<T>(p, sums, col_sum, shared);
    end_step(p.clock, p.end);
}
