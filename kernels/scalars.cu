// Scalars: partial sums added up in f64 in a fixed order, arithmetic on the results, running sums of metrics, and the
// end of the step. Twin of src/engine/steps/scalars.rs.
//
// Launch:
//   grid = 1, threads = 256
//   shared = max(16 · program.regs, 64 · totals_len, 32) bytes
//
// Four stages, each after a barrier because it reads from memory what the one before wrote there.
#include "program.cuh"
#include "ptx.cuh"
#include "step_end.cuh"

// Every warp's part of every total in shared memory, then one thread per total adds the eight parts.
__device__ __forceinline__ void add_up_totals(const ScalarsParams& p, double* parts) {
    const int thread = threadIdx.x, warps = 8;
    for (int t = 0; t < p.totals_len; t++) {
        double sum = 0.0;
        for (int i = thread; i < p.totals[t].len; i += 256) sum += p.totals[t].partials[i];
        sum = fold_warp(sum, [](double a, double b) { return a + b; });
        if (thread % 32 == 0) parts[t * warps + thread / 32] = sum;
    }
    __syncthreads();
    if (thread < p.totals_len) {
        double sum = parts[thread * warps];
        for (int warp = 1; warp < warps; warp++) sum += parts[thread * warps + warp];
        *p.totals[thread].total = static_cast<float>(sum);
    }
}

ELBO_KERNEL_RESIDENT(scalars, 256, 1, ScalarsParams) {
    ELBO_SHARED(float4, shared);
    begin_launch();
    const int thread = threadIdx.x;
    const StepValues values = p.clock.table[p.clock.ctl->now];

    add_up_totals(p, reinterpret_cast<double*>(shared));
    __threadfence_block();
    __syncthreads();

    float sums[MAX_SUMS] = {};
    if (thread == 0) {
        const QuadRegs regs = {shared, 1};
        program_uniform(p.program, values, regs);
        program_quad(p.program, values, regs, 0, 0, 1, splat(0.0f), sums);
    }
    program_sums(p.program, sums, reinterpret_cast<float*>(shared), thread, 256, 0);
    __threadfence_block();
    __syncthreads();

    if (thread < p.metrics_len) *p.metrics[thread].sum += static_cast<double>(*p.metrics[thread].value);
    end_step(p.clock, p.end);
}
