// The matrix product on tensor cores (sm_80 and up): TF32, bf16, and bf16 in several parts, which reaches the accuracy
// of f32.
//
// The strips lie in shared memory in f32, as for the ordinary arithmetic; numbers are rounded, or split into parts, on
// their way from there to the registers. A tensor core multiplies numbers with few bits and adds in f32, so all that is
// lost is lost there:
//
//   Tf32        a ≈ a₀ with 11 bits                    a·b ≈ a₀b₀                                error ~ 2⁻¹¹
//   Bf16<1>     a ≈ a₀ with 8 bits                     a₀b₀                                             2⁻⁸
//   Bf16<2>     a ≈ a₀ + a₁, a₁ = bf16(a − a₀)         a₁b₀ + a₀b₁ + a₀b₀                               2⁻¹⁶
//   Bf16<3>     a = a₀ + a₁ + a₂                       a₂b₀ + a₁b₁ + a₀b₂ + a₁b₀ + a₀b₁ + a₀b₀          2⁻²⁴
//
// a − a₀ is exact in f32. Tensor cores cut the sums off instead of rounding them, which over a long k would be a bias;
// so the split forms sum 16 steps of k from zero, the small products from the smallest to the largest and a₀b₀ apart,
// and add that to the result with ordinary, rounded additions.
//
// What is not finite: where Σ a₀b₀ is infinite or no number, the small products are left out, which would be ∞ − ∞ or
// ∞ · 0 there. So ∞ · b is ∞ with its sign, and ∞ · 0 and ∞ − ∞ are NaN, as in f32.
//
// The range: bf16 has the exponents of f32, but from 3.396·10³⁸ (2¹²⁸ − 2¹¹⁹) on a number rounds to infinity, and a part
// below 2⁻¹³³ is lost. Three parts hold every number from 2⁻¹¹⁰ ≈ 8·10⁻³⁴ on, two parts keep 17 bits from
// 2⁻¹¹⁷ ≈ 6·10⁻³⁶ on. Below, digits are lost one after the other, all of them below 2⁻¹³⁴ ≈ 5·10⁻⁴¹.
#pragma once
#include "gemm_finish.cuh"

// What a precision makes of four numbers that neighbour in k: for every part two words, the first and the second half
// of k. And how it multiplies: d[j] += a · b[j] for neighbouring 16 × 8 tiles j.
struct Tf32 {
    static constexpr int PARTS = 2;  // no parts of a number: an instruction takes 8 steps of k, so 16 are two of them

    static __device__ __forceinline__ void convert(const float (&x)[4], u32 (&first)[2], u32 (&second)[2]) {
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            first[part] = round_to_tf32(x[2 * part]);
            second[part] = round_to_tf32(x[2 * part + 1]);
        }
    }

    template <int N>
    static __device__ __forceinline__ void multiply(float (*d)[4], const u32 (&a)[2][4], const u32 (&b)[N][2][2]) {
#pragma unroll
        for (int part = 0; part < 2; ++part)
#pragma unroll
            for (int j = 0; j < N; ++j) mma_m16n8k8_tf32(d[j], a[part], b[j][part]);
    }
};

template <int PARTS_>
struct Bf16 {
    static constexpr int PARTS = PARTS_;
    static constexpr float LARGEST = 3.402823466e38f;

    static __device__ __forceinline__ void convert(const float (&x)[4], u32 (&first)[PARTS], u32 (&second)[PARTS]) {
        split(x[0], x[1], first);
        split(x[2], x[3], second);
    }

    static __device__ __forceinline__ void split(float lo, float hi, u32 (&word)[PARTS]) {
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
            word[part] = pack_bf16(lo, hi);
            lo = __fsub_rn(lo, bf16_to_float(static_cast<u16>(word[part])));
            hi = __fsub_rn(hi, bf16_to_float(static_cast<u16>(word[part] >> 16)));
        }
    }

    template <int N>
    static __device__ __forceinline__ void multiply(float (*d)[4], const u32 (&a)[PARTS][4],
                                                    const u32 (&b)[N][PARTS][2]) {
        if (PARTS == 1) return product<N>(d, a, b, 0, 0);
        float sum[N][4] = {}, small[N][4] = {};
#pragma unroll
        for (int order = PARTS - 1; order >= 1; --order)  // parts i and j make a product of size 2⁻⁸⁽ⁱ⁺ʲ⁾
#pragma unroll
            for (int i = order; i >= 0; --i) product<N>(small, a, b, i, order - i);
        product<N>(sum, a, b, 0, 0);
#pragma unroll
        for (int j = 0; j < N; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float whole = __fadd_rn(sum[j][e], small[j][e]);
                d[j][e] = __fadd_rn(d[j][e], fabsf(sum[j][e]) <= LARGEST ? whole : sum[j][e]);
            }
    }

    template <int N>
    static __device__ __forceinline__ void product(float (*d)[4], const u32 (&a)[PARTS][4], const u32 (&b)[N][PARTS][2],
                                                   int i, int j_part) {
#pragma unroll
        for (int j = 0; j < N; ++j) mma_m16n8k16_bf16(d[j], a[i], b[j][j_part]);
    }
};

// The sums of a warp, in 16 × 8 tiles.
//
// Which row of C a row of an instruction's operand is, and which k a column, is ours to choose, as long as both operands
// agree on k. With g = lane / 4 and t = lane mod 4 a lane takes four neighbours at a time: of each 32 rows (columns) of
// A (B) those at 4g … 4g + 3, and of each 16 steps of k those at 4t … 4t + 3. So all reads are of 16 bytes, and the sums
// of a lane are whole quads: of each 32 × 32 sums, rows 4g … 4g + 3 at columns 8t … 8t + 7.
template <class T, class P>
struct TensorSums {
    static constexpr int M = T::WARP_M / 32, N = T::WARP_N / 32, QUADS = M * 4 * N * 2;
    float sum[M][2][N][4][4];  // [32 rows][16 of them][32 columns][8 of them][what a lane has of a tile]

    static __device__ __forceinline__ int row0() {
        return threadIdx.x / 32 % (T::WARPS_M * T::WARPS_N) / T::WARPS_N * T::WARP_M + threadIdx.x % 32 / 4 * 4;
    }
    static __device__ __forceinline__ int warp_col() { return threadIdx.x / 32 % T::WARPS_N * T::WARP_N; }

    // Quad q in the tile: which 32 rows, row of the four, which 32 columns, which half of the eight.
    static __device__ __forceinline__ int row(int q) { return row0() + q / (8 * N) * 32 + q / (2 * N) % 4; }
    static __device__ __forceinline__ int col(int q) {
        return warp_col() + q / 2 % N * 32 + threadIdx.x % 4 * 8 + q % 2 * 4;
    }
    __device__ __forceinline__ float4 quad(int q) const {
        const int r = q / (2 * N) % 4, e = r % 2 * 2 + q % 2;
        const float(&s)[4][4] = sum[q / (8 * N)][r / 2][q / 2 % N];
        return make_float4(s[0][e], s[1][e], s[2][e], s[3][e]);
    }

    __device__ __forceinline__ void clear() {
        float* s = &sum[0][0][0][0][0];
#pragma unroll
        for (int i = 0; i < M * N * 32; ++i) s[i] = 0.f;
    }

    __device__ __forceinline__ void multiply(const float* a, const float* b, bool a_k_fast, bool b_k_fast) {
        multiply_strips(*this, a, b, a_k_fast, b_k_fast);
    }

    template <bool A_K_FAST, bool B_K_FAST>
    __device__ __forceinline__ void steps(const float* a, const float* b) {
        const int slice = threadIdx.x / 32 / (T::WARPS_M * T::WARPS_N) * T::SLICE_DEPTH;
#pragma unroll
        for (int k = 0; k < T::SLICE_DEPTH; k += 16) step<A_K_FAST, B_K_FAST>(a, b, slice + k);
    }

    // 16 steps of k.
    template <bool A_K_FAST, bool B_K_FAST>
    __device__ __forceinline__ void step(const float* a, const float* b, int k) {
        const int lane_k = k + threadIdx.x % 4 * 4;
        const int col = warp_col() + threadIdx.x % 32 / 4 * 4;
        u32 right[N][4][P::PARTS][2];
#pragma unroll
        for (int n = 0; n < N; ++n) {
            float x[4][4];
            load<typename T::B, B_K_FAST>(x, b, lane_k, col + n * 32);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                u32 first[P::PARTS], second[P::PARTS];
                P::convert(x[j], first, second);
#pragma unroll
                for (int part = 0; part < P::PARTS; ++part) {
                    right[n][j][part][0] = first[part], right[n][j][part][1] = second[part];
                }
            }
        }
#pragma unroll
        for (int m = 0; m < M; ++m) {
            float x[4][4];
            load<typename T::A, A_K_FAST>(x, a, lane_k, row0() + m * 32);
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                u32 left[P::PARTS][4];
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    u32 first[P::PARTS], second[P::PARTS];
                    P::convert(x[2 * i + half], first, second);
#pragma unroll
                    for (int part = 0; part < P::PARTS; ++part) {
                        left[part][half] = first[part], left[part][2 + half] = second[part];
                    }
                }
#pragma unroll
                for (int n = 0; n < N; ++n) P::template multiply<4>(sum[m][i][n], left, right[n]);
            }
        }
    }

    // x[r][k] for four neighbours in r and four in k.
    template <class Layout, bool K_FAST>
    static __device__ __forceinline__ void load(float (&x)[4][4], const float* strip, int k, int r) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int at = K_FAST ? Layout::at(k, r + i, true) : Layout::at(k + i, r, false);
            const float4 v = *reinterpret_cast<const float4*>(strip + at);
            if (K_FAST) {
                x[i][0] = v.x, x[i][1] = v.y, x[i][2] = v.z, x[i][3] = v.w;
            } else {
                x[0][i] = v.x, x[1][i] = v.y, x[2][i] = v.z, x[3][i] = v.w;
            }
        }
    }
};
