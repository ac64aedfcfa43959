// Who ends a step: of the blocks of all launches that nothing else in the step waits for, the last to finish.
#pragma once
#include "params.cuh"

// Called by all threads of every block, when the block has done everything and reads the clock no more.
__device__ __forceinline__ void end_step(const Clock& clock, const StepEnd& end) {
    if (end.blocks == 0) return;
    __syncthreads();
    if (threadIdx.x != 0) return;
    __threadfence();
    if (atomicAdd(end.ticket, 1u) == end.blocks - 1) {
        *end.ticket = 0;
        clock.ctl->now += 1;
    }
}
