// A ring of tile copies and warpgroup products, right (bug 0) and wrong in one way each. tests/hopper.rs has the numbers.
#include "hopper.cuh"

struct RingParams {
    TensorMap a;  // [m, k], box of 64 rows and 64 of k
    TensorMap b;  // [k, n], box of 64 of k and 64 columns
    float* out;   // [64, 128]
    int k, bug;
    int _pad[12];
};
static_assert(sizeof(RingParams) == 320);

enum Bug {
    RIGHT,
    WARP_STAYS_AWAY,
    WARP_HAS_ENDED,
    NO_ARRIVAL,
    TOO_FEW_BYTES,
    FEWER_THAN_ONE_COPY,
    TOO_MANY_BYTES,
    WRONG_SWIZZLE,
    READ_BEFORE_WAIT,
    WRITTEN_BEFORE_WAIT,
    WRONG_PARITY,
    NO_WGMMA_FENCE,
    NO_INIT_FENCE,
    EARLY_RELEASE,
    NO_WAIT,
    TWO_ARRIVALS,
    UNALIGNED,
    OVERWRITTEN,
    DIFFERENT_OPERANDS,
    NO_WAIT_FOR_EMPTY,
    NOBODY_WAITS_FOR_COPY,
    NO_BARRIER,
    NO_SWIZZLE,
    RESERVED_BITS,
    WITHIN_PATTERN,
};

constexpr int STAGES = 2, A_BYTES = 64 * 128, B_BYTES = 64 * 128, STAGE = A_BYTES + 2 * B_BYTES;

static void write_out(float* out, const float (&sum)[64]) {
    int lane = threadIdx.x % 32, row0 = threadIdx.x / 32 * 16 + lane / 4;
    for (int i = 0; i < 64; ++i) out[(row0 + i / 2 % 2 * 8) * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

static void produce(const RingParams& p, unsigned char* stages, u64* full, u64* empty, int strips) {
    int announced = p.bug == TOO_FEW_BYTES ? STAGE - 128 : p.bug == TOO_MANY_BYTES ? STAGE + 128 : STAGE;
    if (p.bug == FEWER_THAN_ONE_COPY) announced = A_BYTES;
    for (int s = 0; s < strips; ++s) {
        int i = s % STAGES;
        unsigned char* stage = stages + i * STAGE;
        if (p.bug != NO_WAIT_FOR_EMPTY) mbarrier_wait(empty + i, s / STAGES % 2 ^ 1);
        mbarrier_arrive_expect_tx(full + i, announced);
        if (p.bug == OVERWRITTEN) *full = 0;
        if (p.bug == TWO_ARRIVALS) mbarrier_arrive(full + i);
        tma_load_2d(stage, p.a, full + i, s * 64, 0);
        tma_load_2d(stage + A_BYTES, p.b, full + i, 0, s * 64);
        tma_load_2d(stage + A_BYTES + B_BYTES, p.b, full + i, 64, s * 64);
    }
    if (p.bug != NOBODY_WAITS_FOR_COPY) return;
    int i = strips % STAGES;
    mbarrier_wait(empty + i, strips / STAGES % 2 ^ 1);
    mbarrier_arrive_expect_tx(full + i, A_BYTES);
    tma_load_2d(stages + i * STAGE, p.a, full + i, 0, 0);
}

// Warps 0 to 3 multiply, warp 4 copies.
ELBO_KERNEL(check_ring, 160, RingParams) {
    ELBO_SHARED(unsigned char, shared);
    unsigned char* stages = shared + (p.bug == UNALIGNED ? 0 : (1024 - shared_address(shared) % 1024) % 1024);
    u64 *full = reinterpret_cast<u64*>(stages + STAGES * STAGE), *empty = full + STAGES;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, strips = (p.k + 63) / 64;
    if (threadIdx.x == 0 && p.bug != NO_BARRIER) {
        for (int i = 0; i < STAGES; ++i) mbarrier_init(full + i, 1), mbarrier_init(empty + i, 4);
        if (p.bug != NO_INIT_FENCE) fence_mbarrier_init();
    }
    __syncthreads();
    if (warp == 4) {
        if (lane == 0) produce(p, stages, full, empty, strips);
        return;
    }
    if (p.bug == WARP_HAS_ENDED && warp == 3) return;
    float sum[64] = {};
    for (int s = 0; s < strips; ++s) {
        int i = s % STAGES;
        unsigned char *a = stages + i * STAGE, *b = a + A_BYTES;
        mbarrier_wait(full + i, s / STAGES % 2 ^ (p.bug == WRONG_PARITY));
        if (p.bug != NO_WGMMA_FENCE) wgmma_fence(sum);
        for (int k = 0; k < 64; k += 16) {
            u64 left = wgmma_operand(a + 2 * k, 16, 1024), right = wgmma_operand(b + 128 * k, B_BYTES, 1024);
            if (p.bug == WRONG_SWIZZLE) left ^= 3ull << 62;  // 64 bytes instead of 128
            if (p.bug == NO_SWIZZLE) left &= ~(3ull << 62);
            if (p.bug == RESERVED_BITS) left |= 1ull << 31;
            if (p.bug == WITHIN_PATTERN) left += 8;  // 128 bytes: a row further
            if (p.bug == DIFFERENT_OPERANDS && warp == 1) left += 2;
            if (p.bug == WARP_STAYS_AWAY && warp == 2 && s == strips - 1) {
                mbarrier_wait(full + i, s / STAGES % 2 ^ 1);
                continue;
            }
            wgmma_m64n128k16_bf16(sum, left, right);
        }
        wgmma_commit();
        if (p.bug == READ_BEFORE_WAIT && s == 1) p.out[threadIdx.x] = sum[0];
        if (p.bug == WRITTEN_BEFORE_WAIT) sum[5] = 0.f;
        wgmma_wait<1>(sum);
        bool speaks = lane == 0 && !(p.bug == NO_ARRIVAL && warp == 1);
        int released = p.bug == EARLY_RELEASE ? s : s - 1;
        if (released >= 0 && speaks) mbarrier_arrive(empty + released % STAGES);
    }
    if (p.bug == NO_WAIT) return;
    wgmma_wait<0>(sum);
    if (p.bug != READ_BEFORE_WAIT) write_out(p.out, sum);
}

struct StoredParams {
    const u16* a;  // [64, 64]
    const u16* b;  // [64, 128]
    float* out;    // [64, 128]
    int k, bug;
};

// The operands come by ordinary stores: 1: no fence.
ELBO_KERNEL(check_stored, 128, StoredParams) {
    ELBO_SHARED(unsigned char, shared);
    unsigned char *a = shared + (1024 - shared_address(shared) % 1024) % 1024, *b = a + A_BYTES;
    for (int e = threadIdx.x; e < 64 * 8; e += 128) {
        int row = e / 8, chunk = e % 8, to = row * 128 + (chunk ^ row % 8) * 16;
        for (int i = 0; i < 8; ++i) {
            reinterpret_cast<u16*>(a + to)[i] = p.a[row * 64 + chunk * 8 + i];
            reinterpret_cast<u16*>(b + to)[i] = p.b[row * 128 + chunk * 8 + i];
            reinterpret_cast<u16*>(b + B_BYTES + to)[i] = p.b[row * 128 + 64 + chunk * 8 + i];
        }
    }
    if (p.bug != 1) fence_proxy_async();
    __syncthreads();
    float sum[64] = {};
    wgmma_fence(sum);
    for (int k = 0; k < 64; k += 16) {
        wgmma_m64n128k16_bf16(sum, wgmma_operand(a + 2 * k, 16, 1024), wgmma_operand(b + 128 * k, B_BYTES, 1024));
    }
    wgmma_commit();
    wgmma_wait<0>(sum);
    write_out(p.out, sum);
}
