// The ladder, 8 of 12: a warp multiplies matrices.
//
// A tensor core multiplies a 16 × 16 matrix by a 16 × 8 one in one instruction of a whole warp, 2048 multiply-adds, if
// the numbers are short: here bf16, f32 with the last 16 bits rounded away. The sums stay f32. The copies convert;
// ldmatrix brings 8 × 8 pieces from shared memory to the registers in the order in which the instruction wants them
// (ptx.cuh shows it), those of B turned on the way. A block computes 128 × 128 elements, a warp 64 × 32 of them, and k
// advances by 32. Eight idle numbers after each row let the eight rows of a piece begin at different banks.
//
// What limits it: waiting, again. Numbers must be in registers to be converted, so no bf16 is copied ahead: gemm_7's
// pipeline is gone, and the time of a strip is a trip to memory and then the multiplication, one after the other. The latter
// is now so short, 512 cycles for 32 of k at 1024 multiply-adds a cycle (sm_80), that the trip, several hundred, counts as
// much. gemm_9 brings the pipeline back. ../gemm_tensor.cuh does so in another way: it copies f32 ahead and converts what it
// reads from shared memory, which costs shared memory twice the bytes and each warp the conversion.
//
// Error about 2.4·10⁻³ for normal numbers, ‖C − C₆₄‖ / ‖C₆₄‖ in the Frobenius norm. Wants what gemm_6 wants, and sm_80.
//
// Exercise: why are eight idle numbers right for A, and would four do? (A row is then 80 bytes, 5 groups of four banks,
// and 5r mod 8 takes all eight values. With four idle numbers rows begin at 72 r bytes, no multiple of 16: ldmatrix
// refuses.)
#include "../params.cuh"
#include "../ptx.cuh"

ELBO_KERNEL(dev_gemm_8, 256, LadderParams) {
    constexpr int A_PITCH = 32 + 8, B_PITCH = 128 + 8;
    ELBO_SHARED(u16, shared);
    u16* const a = shared;                  // [128 rows][32 of k]
    u16* const b = shared + 128 * A_PITCH;  // [32 of k][128 columns]
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int y = warp / 4 * 64, x = warp % 4 * 32;  // the warp's rows and columns in the tile
    float sum[4][4][4] = {};                         // [16 rows][8 columns][of this lane]
    for (int k0 = 0; k0 < p.k; k0 += 32) {
        for (int e = threadIdx.x * 4; e < 128 * 32; e += 256 * 4) {
            const int ar = e / 32, ak = e % 32, br = e / 128, bc = e % 128;
            float4 u = make_float4(0.f, 0.f, 0.f, 0.f), v = u;
            if (row0 + ar < p.m && k0 + ak < p.k) {
                u = *reinterpret_cast<const float4*>(p.a + (row0 + ar) * p.lda + k0 + ak);
            }
            if (k0 + br < p.k && col0 + bc < p.n) {
                v = *reinterpret_cast<const float4*>(p.b + (k0 + br) * p.ldb + col0 + bc);
            }
            u32* const to_a = reinterpret_cast<u32*>(a + ar * A_PITCH + ak);
            u32* const to_b = reinterpret_cast<u32*>(b + br * B_PITCH + bc);
            to_a[0] = pack_bf16(u.x, u.y), to_a[1] = pack_bf16(u.z, u.w);
            to_b[0] = pack_bf16(v.x, v.y), to_b[1] = pack_bf16(v.z, v.w);
        }
        __syncthreads();
#pragma unroll
        for (int k = 0; k < 32; k += 16) {
            u32 right[4][2];
#pragma unroll
            for (int j = 0; j < 4; ++j) ldmatrix_x2_trans(right[j], b + (k + lane % 16) * B_PITCH + x + 8 * j);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                u32 left[4];
                ldmatrix_x4(left, a + (y + 16 * i + lane % 16) * A_PITCH + k + lane / 16 * 8);
#pragma unroll
                for (int j = 0; j < 4; ++j) mma_m16n8k16_bf16(sum[i][j], left, right[j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = row0 + y + 16 * i + lane / 4 + e / 2 * 8, col = col0 + x + 8 * j + lane % 4 * 2 + e % 2;
                if (row < p.m && col < p.n) p.c[row * p.ldc + col] = sum[i][j][e];
            }
}
