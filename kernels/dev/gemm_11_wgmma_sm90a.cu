// The ladder, 11 of 12: tensor cores that read shared memory, and copies that nobody carries.
//
// In gemm_9 the eight warps fetch operands into registers, 24 KiB of reads for 16 of k, and compute addresses for every chunk
// they copy. Hopper (compute capability 9.0; no other has wgmma) has instructions that do without both:
//
//   * wgmma: four warps multiply 64 × 16 by 16 × 128 numbers, 131072 multiply-adds, in one instruction whose operands stay in
//     shared memory. Registers hold sums alone. It runs beside the threads, which wait for it
//   * TMA: one thread names a tile by its coordinates, and the copy unit computes addresses, swizzles, and writes zeros where the
//     matrix has ended: no `if` is left in the loop, and m, n and k may be any. (Rows must begin at multiples of 16 bytes, so the
//     planes are padded as for gemm_9.)
//   * mbarrier: a barrier that counts bytes. The copies count theirs off, so nobody has to wait for copies in order to say that
//     they are there
//
// So the warps part: one copies, eight multiply, and __syncthreads() is gone from the loop (warpgroup.cuh has the picture).
//
// What limits it (estimated; nothing was measured on a GPU). Per 64 of k a block does 128 · 128 · 64 multiply-adds:
//
//   tensor cores     512 cycles at 2048 a cycle
//   shared memory    8 products read 2 KiB of A and 4 KiB of B each, 48 KiB, and 32 KiB arrive: 640 cycles at 128 bytes a cycle
//   second level     32 KiB, 64 FLOP per byte as in gemm_9; at 5.5 TB/s on an H200 352 TFLOP/s for all multiprocessors
//
// Two blocks are on a multiprocessor, so that one multiplies while the other stores. The second-level cache comes first, as
// for gemm_9 and with the same ceiling: what this rung takes away was the next limit, not the first. Per 16 of k tensor
// cores need 128 instead of 197 cycles now and shared memory 160 instead of 256, and registers are free, which makes room
// for the larger tiles that raise the ceiling (the exercise). For all of the tensor cores, 989 TFLOP/s, it would have to be
// 180 FLOP per byte, which takes tiles that neighbouring multiprocessors share ("clusters").
//
// Error about 2.4·10⁻³, as for gemm_8. Takes any sizes.
//
// Exercise: let the tile have 256 columns and each product 64 × 256. How many cycles do tensor cores and shared memory take per
// 64 of k, how many registers do a thread's sums take, and how many FLOP are there per byte of the second level? (1024, and 8
// reads of 10 KiB and 48 KiB that arrive: 1024; 128; 85.)
#include "warpgroup.cuh"

ELBO_KERNEL_RESIDENT(dev_gemm_11, 288, 2, TilesParams) {
    ELBO_SHARED(unsigned char, shared);
    multiply_tiles(p, shared, [](float sum, int) { return sum; });
}
