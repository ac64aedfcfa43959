// The ladder, 9 of 12: operands as the tensor cores want them, and the pipeline again.
//
// gemm_8 reads f32 and rounds it on the way. Every block does that anew, and because the numbers have to pass registers
// to be rounded, nothing can be copied ahead: rung 7's pipeline was lost. Here the matrices are rounded once, by a
// small kernel of their own (../planes.cu), and lie in memory as planes of bf16. Then
//
//   * a copy is 16 bytes from memory to shared memory by cp_async16, eight numbers, past the registers; half the bytes
//   * three strips are in shared memory, two of them on their way (rung 7). With gemm_8's idle numbers they would take
//     55.5 KiB; a block gets 48 KiB without asking, which is what they take swizzled (../planes.cuh, with a table of banks)
//   * four matrices of B come with one instruction, ldmatrix_x4_trans, as those of A did before
//
// The rounding costs time of its own, which is told beside that of the product: 4 bytes read and 2 written per number,
// against one multiply-add for each of the n columns (or m rows) that use it.
//
// What limits it (estimated; nothing was measured on a GPU). Per 16 of k a block does 128 · 128 · 16 multiply-adds:
//
//   tensor cores     256 cycles at 1024 a cycle (sm_80); 197 at 1330 (sm_90, 65 % of what wgmma would do)
//   shared memory    8 warps read (64 + 32) · 16 numbers, 24 KiB, and 8 KiB arrive: 256 cycles at 128 bytes a cycle
//   second level     8 KiB, 64 FLOP per byte (gemm_8: 32); at 5.5 TB/s on an H200 352 TFLOP/s for all multiprocessors
//
// So on sm_80 tensor cores and shared memory are at their limit together (an A100's second-level cache, some 4 TB/s, would
// allow 256 of its 312 TFLOP/s), and on an H200 the second-level cache comes first. Two blocks are on a multiprocessor.
// Larger tiles relieve both memories.
//
// Error about 2.4·10⁻³, as for gemm_8. Takes any sizes, and sm_80.
//
// Exercise: let four warps compute 64 × 64 each instead of eight 64 × 32. How many bytes do they read from shared memory
// per 16 of k, and how many registers do the sums of a lane take then? (16 KiB, so 192 cycles with what arrives; 128.)
#include "planes.cuh"

ELBO_KERNEL(dev_gemm_9, 256, PlanesParams) {
    ELBO_SHARED(u16, shared);
    const int strips = (p.k + DEPTH - 1) / DEPTH;
    float sum[4][4][4] = {};
    for (int s = 0; s < STAGES - 1; ++s) {
        if (s < strips) start_copies(p, p.a, p.b, shared + s * STRIP, s * DEPTH);
        cp_async_commit();
    }
    for (int s = 0; s < strips; ++s) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();
        const int next = s + STAGES - 1;
        if (next < strips) start_copies(p, p.a, p.b, shared + next % STAGES * STRIP, next * DEPTH);
        cp_async_commit();
        multiply_strip(sum, shared + s % STAGES * STRIP);
    }
    store(p, sum);
}
