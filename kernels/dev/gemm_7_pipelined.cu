// The ladder, 7 of 12: copy the next strips while multiplying this one.
//
// Until now a block waits for memory, then multiplies, then waits again; only other blocks on the same multiprocessor
// fill the pauses. From sm_80 on, copies to shared memory can be left to themselves: cp_async starts one, and no register
// holds the number meanwhile. With room for four strips in shared memory, three are on their way while one is multiplied.
// One barrier per strip is enough: it says both that the strip has arrived for everybody and that everybody is done with
// the one before, whose place is filled next.
//
// A copy of 4 bytes can go anywhere, so A is still turned on the way, but element by element. (On sm_75 the copies wait
// after all, and the kernel is right but not faster.) The multiplication is that of gemm_6, and so are its wishes.
//
// What limits it: the arithmetic in f32, 128 multiply-adds of a multiprocessor in a cycle (sm_75 and sm_80: 64); 67
// TFLOP/s for all of an H200 by its data sheet. By memory it could do more: 32 FLOP per byte.
//
// Exercise: what goes wrong if start_copies comes before the barrier? (It may fill the strip that a slower warp still
// multiplies.) And if STAGES is 2? (Nothing, but the one copy on its way has to arrive within one strip's arithmetic.)
#include "../params.cuh"
#include "../ptx.cuh"

static constexpr int PITCH = 128 + 4, STRIP = 2 * 8 * PITCH, STAGES = 4;

// Starts the copies of strip k0 … k0 + 7: of A to strip[k][row], of B to strip[8 + k][column].
static __device__ __forceinline__ void start_copies(const LadderParams& p, float* strip, int k0) {
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int k = threadIdx.x % 8, r = threadIdx.x / 8 + 32 * i;
        const bool in = row0 + r < p.m && k0 + k < p.k;
        cp_async4(strip + k * PITCH + r, in ? p.a + (row0 + r) * p.lda + k0 + k : p.a, in);
    }
    const int k = threadIdx.x / 32, c = threadIdx.x % 32 * 4;
    const bool in = k0 + k < p.k && col0 + c < p.n;
    cp_async16(strip + (8 + k) * PITCH + c, in ? p.b + (k0 + k) * p.ldb + col0 + c : p.b, in);
}

ELBO_KERNEL(dev_gemm_7, 256, LadderParams) {
    ELBO_SHARED(float, shared);
    const int row0 = blockIdx.y * 128, col0 = blockIdx.x * 128;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int y = warp / 2 * 32 + lane / 8 * 4, x = warp % 2 * 64 + lane % 8 * 4;
    const int strips = (p.k + 7) / 8;
    float sum[8][8] = {};
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < strips) start_copies(p, shared + s * STRIP, s * 8);
        cp_async_commit();
    }
    for (int s = 0; s < strips; ++s) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        const int next = s + STAGES - 1;
        if (next < strips) start_copies(p, shared + next % STAGES * STRIP, next * 8);
        cp_async_commit();
        const float* const strip = shared + s % STAGES * STRIP;
#pragma unroll
        for (int k = 0; k < 8; ++k) {
            float4 u4[2], v4[2];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                u4[h] = *reinterpret_cast<const float4*>(strip + k * PITCH + y + 16 * h);
                v4[h] = *reinterpret_cast<const float4*>(strip + (8 + k) * PITCH + x + 32 * h);
            }
            const float u[8] = {u4[0].x, u4[0].y, u4[0].z, u4[0].w, u4[1].x, u4[1].y, u4[1].z, u4[1].w};
            const float v[8] = {v4[0].x, v4[0].y, v4[0].z, v4[0].w, v4[1].x, v4[1].y, v4[1].z, v4[1].w};
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) sum[i][j] += u[i] * v[j];
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int row = row0 + y + i / 4 * 16 + i % 4, col = col0 + x + 32 * h;
            const float* s = &sum[i][4 * h];
            if (row < p.m && col < p.n) {
                *reinterpret_cast<float4*>(p.c + row * p.ldc + col) = make_float4(s[0], s[1], s[2], s[3]);
            }
        }
}
