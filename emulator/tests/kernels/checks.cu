// Small kernels with and without a bug: what the emulator must accept, and what it must catch.
#include "elbo.cuh"
#ifdef ELBO_EMU
#include "emu_ptx.cuh"
#endif

// `bug` 0: the kernel is correct.
struct CheckParams {
    const float* x;
    float* out;
    u32* ticket;
    int n, bug;
};

// out[block] = Σ of the block's 256 elements of x, by halving in shared memory and shuffles in the last warp.
// Bug 1: the barrier of the loop is missing.
ELBO_KERNEL(check_sum, 256, CheckParams) {
    ELBO_SHARED(float, partial);
    int t = threadIdx.x;
    partial[t] = p.x[blockIdx.x * 256 + t];
    __syncthreads();
    for (int half = 128; half >= 32; half /= 2) {
        if (t < half) partial[t] = __fadd_rn(partial[t], partial[t + half]);
        if (p.bug != 1) __syncthreads();
    }
    if (t < 32) {
        float sum = partial[t];
        for (int lanes = 16; lanes > 0; lanes /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, lanes));
        if (t == 0) p.out[blockIdx.x] = sum;
    }
}

// out [n, n] = xᵀ by tiles of 32 × 32, 8 rows at a time. Bug 1: no barrier between writing and reading the tile.
ELBO_KERNEL(check_transpose, 256, CheckParams) {
    ELBO_SHARED(float, tile);
    int col = threadIdx.x % 32, first = threadIdx.x / 32;
    for (int row = first; row < 32; row += 8) {
        tile[row * 33 + col] = p.x[(blockIdx.y * 32 + row) * p.n + blockIdx.x * 32 + col];
    }
    if (p.bug != 1) __syncthreads();
    for (int row = first; row < 32; row += 8) {
        p.out[(blockIdx.x * 32 + row) * p.n + blockIdx.y * 32 + col] = tile[col * 33 + row];
    }
}

// Two rounds over one tile. Bug 1: nothing keeps a fast thread from writing the next round over what others still read.
ELBO_KERNEL(check_rounds, 64, CheckParams) {
    ELBO_SHARED(float, tile);
    int t = threadIdx.x;
    float sum = 0.0f;
    for (int round = 0; round < 4; ++round) {
        tile[t] = p.x[round * 64 + t];
        __syncthreads();
        sum = __fadd_rn(sum, tile[(t + 33) % 64]);
        if (p.bug != 1) __syncthreads();
    }
    p.out[t] = sum;
}

// Barriers and warps. Bug 1: half a warp goes to another barrier. 2: half a warp shuffles with the mask of the whole.
// 3: a lane shuffles with a mask that it is not in. 4: one thread waits for ever. 5: shuffle after lanes have returned.
// 6: a thread spins on what another one would write.
ELBO_KERNEL(check_divergence, 64, CheckParams) {
    int t = threadIdx.x;
    float value = static_cast<float>(t);
    if (p.bug == 1) {
        if (t < 16) __syncthreads();
    }
    if (p.bug == 2 && t % 2 == 0) value = __shfl_down_sync(0xffffffffu, value, 2);
    if (p.bug == 3) value = __shfl_sync(0x0000ffffu, value, 3);
    if (p.bug == 4 && t == 7) __syncwarp(0xffffffffu);
    if (p.bug == 5 && t >= 40) return;
    if (p.bug == 6 && t == 0) {
        while (*static_cast<volatile float*>(p.out + 63) != 1.0f) {}
    }
    value = __fadd_rn(value, __shfl_up_sync(0xffffffffu, value, 1));
    __syncthreads();
    p.out[t] = value;
}

// Bug 1: writes p.n elements behind the end of out. 2: before it. 3: far away. 4: reads a float4 at an odd address.
// 5: one element more of shared memory than there is. 6: an index outside an array. 7: reads from address 4.
ELBO_KERNEL(check_bounds, 32, CheckParams) {
    ELBO_SHARED(float, shared);
    int t = threadIdx.x;
    shared[t] = p.x[t];
    __syncthreads();
    p.out[t] = shared[31 - t];
    if (t != 0) return;
    if (p.bug == 1) p.out[p.n] = 1.0f;
    if (p.bug == 2) p.out[-1] = 1.0f;
    if (p.bug == 3) p.out[1 << 24] = 1.0f;
    if (p.bug == 4) p.out[0] = reinterpret_cast<const float4*>(p.x + 1)->y;
    if (p.bug == 5) shared[32] = 1.0f;
    if (p.bug == 6) {
        float table[4] = {1, 2, 3, 4};
        p.out[0] = table[p.bug];
    }
    if (p.bug == 7) p.out[0] = *reinterpret_cast<const float*>(u64(4));
}

// out[t] = x[t] by asynchronous copies, two groups. Bug 1: the wait leaves the last group pending. 2: no barrier after
// the wait, though each thread reads what another has copied.
ELBO_KERNEL(check_async, 32, CheckParams) {
    ELBO_SHARED(float, shared);
    int t = threadIdx.x;
    cp_async16(shared + 4 * t, p.x + 4 * t, true);
    cp_async_commit();
    cp_async4(shared + 128 + t, p.x + 128 + t, t != 5);
    cp_async_commit();
    if (p.bug == 1) {
        cp_async_wait<1>();
    } else {
        cp_async_wait<0>();
    }
    if (p.bug != 2) __syncthreads();
    for (int i = 0; i < 5; ++i) p.out[32 * i + t] = shared[32 * i + (t + 7) % 32];
}

// out[0] = Σ x over all blocks: each block leaves its sum, and the last one to finish adds them in order.
// Bug 1: no fence before the ticket is drawn. 2: the sum of sums is formed by whoever comes, not by the last block.
ELBO_KERNEL(check_ticket, 32, CheckParams) {
    ELBO_SHARED(u32, last);
    float sum = p.x[blockIdx.x * 32 + threadIdx.x];
    for (int lanes = 16; lanes > 0; lanes /= 2) sum = __fadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, lanes));
    if (threadIdx.x == 0) {
        p.out[1 + blockIdx.x] = sum;
        if (p.bug != 1) __threadfence();
        *last = atomicInc(p.ticket, gridDim.x - 1) == gridDim.x - 1;
        if (p.bug == 2) *last = blockIdx.x == gridDim.x - 1;
    }
    __syncthreads();
    if (*last && threadIdx.x == 0) {
        float total = 0.0f;
        for (u32 i = 0; i < gridDim.x; ++i) total = __fadd_rn(total, p.out[1 + i]);
        p.out[0] = total;
    }
}

// out [16, 32] = x, whose words are pairs of 16-bit numbers, through swizzled shared memory and ldmatrix; transposed
// on the way, and back, if n is 1. Bug 1: a lane names an address inside of a row. 2: half a warp stays away. 3: half a warp
// has ended. 4: rows are looked for where they would lie without the swizzle. 5: they are looked for in x itself.
// 6: nobody waits for what the other lanes have copied.
ELBO_KERNEL(check_ldmatrix, 32, CheckParams) {
    ELBO_SHARED(u16, shared);  // [16 rows][8 chunks of 8]
    const auto at = [](int row, int chunk) { return (row * 8 + (chunk ^ row % 8)) * 8; };
    const int t = threadIdx.x;
    for (int e = t; e < 128; e += 32) cp_async16(shared + at(e / 8, e % 8), p.x + 4 * e, true);
    cp_async_commit();
    cp_async_wait<0>();
    if (p.bug != 6) __syncwarp();
    if (p.bug == 3 && t >= 16) return;
    for (int pair = 0; pair < 4; ++pair) {
        // Lanes 0–7 name rows 0–7 of the first chunk, 8–15 rows 8–15 of it, 16–31 the rows of the second chunk.
        const int row = t % 16, chunk = 2 * pair + t / 16;
        const void* from = shared + (p.bug == 4 ? (row * 8 + chunk) * 8 : at(row, chunk)) + (p.bug == 1 && t == 9);
        if (p.bug == 5) from = p.x + row * 32 + chunk * 4;
        u32 r[4] = {};
        if (p.bug != 2 || t < 16) {
            if (p.n == 1) ldmatrix_x4_trans(r, from);
            else ldmatrix_x4(r, from);
        }
        for (int i = 0; i < 4; ++i) {
            const int row0 = i % 2 * 8, chunk0 = 2 * pair + i / 2;
            if (p.n == 1) {
                u16* const out = reinterpret_cast<u16*>(p.out) + (row0 + t % 4 * 2) * 64 + chunk0 * 8 + t / 4;
                out[0] = static_cast<u16>(r[i]), out[64] = static_cast<u16>(r[i] >> 16);
            } else {
                p.out[(row0 + t / 4) * 32 + chunk0 * 4 + t % 4] = __uint_as_float(r[i]);
            }
        }
    }
    __syncthreads();
}

// Lanes hand a value on through shared memory. Bug 1: without __syncwarp, relying on lanes running in step.
ELBO_KERNEL(check_warp_memory, 32, CheckParams) {
    ELBO_SHARED(float, shared);
    int t = threadIdx.x;
    shared[t] = p.x[t];
    if (p.bug != 1) __syncwarp();
    p.out[t] = shared[t ^ 1];
}

// Votes and predicates of barriers, as one number per thread.
ELBO_KERNEL(check_votes, 64, CheckParams) {
    int t = threadIdx.x;
    u32 odd = __ballot_sync(0xffffffffu, t % 2);
    int any = __any_sync(0xffffffffu, t == 40), all = __all_sync(0xffffffffu, t < 64);
    int count = __syncthreads_count(t < 10), and_ = __syncthreads_and(t < 63), or_ = __syncthreads_or(t == 63);
    p.out[t] = static_cast<float>((odd == 0xaaaaaaaau) + 2 * any + 4 * all + 8 * count + 1024 * and_ + 2048 * or_);
}

// out[t] = x[t] + 1, and what was read too early, in a launch that is set up ahead. Before it waits it reads (bug 1), writes (2), counts (3) or starts a
// copy (4); or half of its threads do not wait at all (5). Or it copies ahead what may still be written, x (6), or what has to be
// there, `ticket` (7), and adds that.
ELBO_KERNEL(check_ahead, 32, CheckParams) {
    ELBO_SHARED(float, shared);
    int t = threadIdx.x;
    float x = p.bug == 1 ? p.x[t] : 0.0f;
    if (p.bug == 2) p.out[t] = x;
    if (p.bug == 3) atomicAdd(p.ticket, 0u);
    if (p.bug == 4) cp_async4(shared + t, p.x + t, true);
    if (p.bug == 5 && t >= 16) return;
    const float* const early = p.bug == 6 ? p.x : reinterpret_cast<const float*>(p.ticket);
    if (p.bug >= 6 && t < 8) cp_async16_ahead(shared + 4 * t, early + 4 * t, true);
    begin_launch();
    cp_async_wait_all();
    __syncthreads();
    if (p.bug == 7) x = shared[t];
    p.out[t] = __fadd_rn(__fadd_rn(p.x[t], 1.0f), x);
}

// out[t] = x[t] + value, for streams and graphs.
struct AddParams {
    const float* x;
    float* out;
    float value;
    int n;
};
ELBO_KERNEL(check_add, 32, AddParams) {
    int i = blockIdx.x * 32 + threadIdx.x;
    if (i < p.n) p.out[i] = __fadd_rn(p.x[i], p.value);
}

// One product of the tensor cores, a [16, k] · b [k, 8] with b stored [8, k], by ldmatrix (kind 0), by ldmatrix.trans
// of b stored [k, 8] (kind 1), and in TF32 with k = 8 (kind 2).
struct MmaParams {
    const u16 *a, *b;
    const float *a32, *b32;
    float* out;  // [16, 8]
    int kind;
};
ELBO_KERNEL(check_mma, 32, MmaParams) {
    ELBO_SHARED(u16, shared);
    u16 *as = shared, *bs = shared + 256;
    int t = threadIdx.x;
    float d[4] = {};
    if (p.kind == 2) {
        int group = t / 4, pos = t % 4;
        u32 a[4], b[2];
        for (int r = 0; r < 4; ++r) a[r] = __float_as_uint(p.a32[(group + 8 * (r & 1)) * 8 + pos + 4 * (r >> 1)]);
        for (int r = 0; r < 2; ++r) b[r] = __float_as_uint(p.b32[group * 8 + pos + 4 * r]);
        mma_m16n8k8_tf32(d, a, b);
    } else {
        for (int i = t; i < 256; i += 32) as[i] = p.a[i];
        for (int i = t; i < 128; i += 32) bs[i] = p.b[i];
        __syncwarp();
        u32 a[4], b[2];
        // Tiles of a in the order of its registers: rows 0–7 and 8–15 of columns 0–7, then of columns 8–15.
        ldmatrix_x4(a, as + (t % 16) * 16 + t / 16 * 8);
        if (p.kind == 0) ldmatrix_x2(b, bs + t % 8 * 16 + t / 8 % 2 * 8);
        if (p.kind == 1) ldmatrix_x2_trans(b, bs + t % 16 * 8);
        mma_m16n8k16_bf16(d, a, b);
    }
    for (int r = 0; r < 4; ++r) p.out[(t / 4 + 8 * (r / 2)) * 8 + 2 * (t % 4) + r % 2] = d[r];
}
