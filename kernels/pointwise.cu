// Pointwise programs: what stands between two matrix products, one launch per fused group.
// Twin of src/engine/steps/pointwise.rs. Programs of the usual models are compiled (compiled.cuh), others interpreted
// (program.cuh).
//
// Launch:
//   threads = 256 if regs ≤ 12, 128 if regs ≤ 24, 64 if regs ≤ 48, else 32
//   shared  = max(regs, 1) · threads · 16 bytes          (at most 48 KiB: no attribute to ask for)
//   quads   = rows · ⌈cols / 4⌉                          (below 2³²)
//   need    = max(⌈quads / threads⌉, 1)
//   grid    = ⌈need / ⌈need / 2048⌉⌉                     (partial sums: `grid` of them, one per block; none if quads = 0)
//
// Block b runs the quads b·per … (b + 1)·per − 1 with per = threads · ⌈need / grid⌉, counted row by row. So what a
// block adds up depends on the shape and the program alone. Any other grid is right too, with other partial sums. Above
// 2048 blocks, which fill every GPU, a block takes several quads per thread, so that the uniform registers are worth
// their filling.
#include "compiled.cuh"
#include "ptx.cuh"

ELBO_KERNEL_RESIDENT(pointwise, 256, 3, PointwiseParams) {
    ELBO_SHARED(float4, file);
    begin_launch();
    const Program& program = p.program;
    const u32 across = (static_cast<u32>(program.cols) + 3) / 4;
    const u32 quads = program.rows * across;
    if (quads == 0) return;
    const u32 threads = blockDim.x, thread = threadIdx.x;
    const u32 need = (quads - 1) / threads + 1;
    const u64 per = static_cast<u64>(threads) * ((need - 1) / gridDim.x + 1);
    const u64 end = min((blockIdx.x + 1) * per, static_cast<u64>(quads));

    const StepValues values = p.clock.table[p.clock.ctl->now];
    float sums[MAX_SUMS] = {};
    const auto each_quad = [&](auto&& run) {
        for (u64 quad = blockIdx.x * per + thread; quad < end; quad += threads) {
            const int row = static_cast<int>(static_cast<u32>(quad) / across);
            const int col = static_cast<int>(static_cast<u32>(quad) % across * 4);
            run(row, col, lanes_from(col, program.cols));
        }
    };
    const auto compiled = [&](auto& run) {
        each_quad([&](int row, int col, int n) { run.quad(row, col, n, splat(0.0f), sums); });
    };
    if (!with_compiled(program, values, compiled)) {
        const QuadRegs regs = {file + thread, static_cast<int>(threads)};
        program_uniform(program, values, regs);
        each_quad([&](int row, int col, int n) {
            program_quad(program, values, regs, row, col, n, splat(0.0f), sums);
        });
    }
    program_sums(program, sums, reinterpret_cast<float*>(file), thread, threads, blockIdx.x);
}
