// Steps that follow one another row by row, in one launch: row r of each needs of the one before only row r. So a block takes
// some rows through all of them, and what would be the end of one kernel and the begin of the next, 1 µs and more, is a
// barrier of the block. src/engine/device/cuda/rows.rs finds such steps and makes the launch.
//
// Where the k of the product before is split, its blocks leave the sums of each split (GemmParams::apart) and the first phase
// here adds a row of them up: so no block of the product waits for another, which takes a write, a counter and a read behind one
// another, 1 µs and more.
//
// The price is that every block reads all weights, through the second-level cache, and that a product of few rows feeds few
// multiply-adds from each number. It is paid where products are small: heads, sample and first layer of a decoder. On capabilities 9.x to
// 11.x, where launches are set up ahead, the weights are copied to shared memory before this one waits, since nobody writes them who may still run.
//
// Launch:
//   rows_1, rows_4: threads = 256, grid = ⌈rows / 1⌉, ⌈rows / 4⌉
//   shared = 4 · max over phases of (R · pitch + max(R · k + 4 · R · n, 4 · regs · group, 64)) bytes, where R = 1 or 4,
//            pitch = n rounded up to a multiple of 4, and the terms of a product only where there is one to multiply,
//            those of registers where a program is interpreted; and behind that the weights that are copied ahead, each with
//            the pitch of weights_pitch
//   sums of programs: one for each block
//
// The order of additions is that of gemm_f32_32x32 and gemm_f32_64x32: four slices of k, eight of every 32 each, then the
// splits. So a product has the bits that it has alone in f32; in other precisions it is f32 here.
#include "compiled.cuh"
#include "epilogue.cuh"
#include "params.cuh"
#include "ptx.cuh"

constexpr int ROWS_THREADS = 256, SLICES = 4, SLICE_DEPTH = 8, STRIP = SLICES * SLICE_DEPTH;

// The distance of the rows of B in shared memory: [k, n] as it is; [n, k] with k rounded up and four idle floats, so that eight
// neighbouring threads, two columns of four slices, read four floats each from all banks.
__device__ __forceinline__ int weights_pitch(const RowsPhase& phase) {
    return phase.tb ? (phase.k + SLICE_DEPTH - 1) / SLICE_DEPTH * SLICE_DEPTH + 4 : phase.n;
}

// Starts the copies of the weights. The host asks for it where they move 16 bytes at a time.
__device__ __forceinline__ void copy_ahead(const RowsParams& p, float* shared) {
#pragma unroll 1
    for (int i = 0; i < p.phases_len; ++i) {
        const RowsPhase& phase = p.phases[i];
        if (phase.ahead == 0) continue;
        const int rows = phase.tb ? phase.n : phase.k, cols = phase.tb ? phase.k : phase.n;
        const int pitch = weights_pitch(phase), across = pitch / 4;
        for (int quad = threadIdx.x; quad < rows * across; quad += ROWS_THREADS) {
            const int row = quad / across, col = quad % across * 4;
            const float* const from = phase.b + (static_cast<long long>(row) * phase.ldb + col);
            cp_async16_ahead(shared + phase.ahead + row * pitch + col, from, col < cols);
        }
    }
    cp_async_commit();
}

// Adds the products of one slice of one split, for a column of B and R rows in shared memory. AHEAD: B is there too.
template <int R, bool AHEAD>
__device__ __forceinline__ void add_slice(const RowsPhase& phase, const float* weights, const float* x, int col, int slice,
                                          int begin, int end, float (&sum)[R]) {
    const float* const from = AHEAD ? weights : static_cast<const float*>(phase.b);
    const long long pitch = AHEAD ? weights_pitch(phase) : phase.ldb, step = phase.tb ? 1 : pitch;
    const float* const b = phase.tb ? from + col * pitch : from + col;
#pragma unroll 2
    for (int k0 = begin + slice * SLICE_DEPTH; k0 < end; k0 += STRIP) {
        float y[SLICE_DEPTH];
        // All loads of a strip are under way before the first is needed.
        if (AHEAD && phase.tb) {
#pragma unroll
            for (int j = 0; j < SLICE_DEPTH; j += 4) {
                const float4 quad = *reinterpret_cast<const float4*>(b + k0 + j);
                y[j] = quad.x, y[j + 1] = quad.y, y[j + 2] = quad.z, y[j + 3] = quad.w;
            }
        } else {
#pragma unroll
            for (int j = 0; j < SLICE_DEPTH; ++j) y[j] = k0 + j < end ? b[(k0 + j) * step] : 0.f;
        }
#pragma unroll
        for (int j = 0; j < SLICE_DEPTH; ++j) {
            if (k0 + j >= end) continue;
#pragma unroll
            for (int r = 0; r < R; ++r) sum[r] = __fmaf_rn(x[r * phase.k + k0 + j], y[j], sum[r]);
        }
    }
}

// total[r · pitch + col] = row row0 + r of A · op(B). Rows beyond the last are computed from zeros.
template <int R>
__device__ __forceinline__ void multiply_rows(const RowsPhase& phase, const float* weights, int row0, int rows, int pitch,
                                              float* total, float* scratch) {
    const int thread = threadIdx.x, n = phase.n, k = phase.k;
    float* const x = scratch;         // [R][k]
    float* const part = x + R * k;    // [SLICES][R][n]
    for (int e = thread; e < R * k; e += ROWS_THREADS) {
        const int r = e / k;
        x[e] = r < rows ? *element(phase.a, phase.lda, row0 + r, e - r * k) : 0.f;
    }
    __syncthreads();
    for (int split = 0; split < phase.splits; ++split) {
        const int begin = split * phase.k_per_split, end = min(k, begin + phase.k_per_split);
        for (int item = thread; item < SLICES * n; item += ROWS_THREADS) {
            // Neighbouring threads read neighbours in memory: along k where B is stored [n, k], along n where not.
            const int col = phase.tb ? item / SLICES : item % n, slice = phase.tb ? item % SLICES : item / n;
            float sum[R] = {};
            if (phase.ahead != 0) add_slice<R, true>(phase, weights, x, col, slice, begin, end, sum);
            else add_slice<R, false>(phase, weights, x, col, slice, begin, end, sum);
#pragma unroll
            for (int r = 0; r < R; ++r) part[(slice * R + r) * n + col] = sum[r];
        }
        __syncthreads();
        for (int e = thread; e < R * n; e += ROWS_THREADS) {
            float sum = part[e];
#pragma unroll
            for (int slice = 1; slice < SLICES; ++slice) sum = __fadd_rn(sum, part[slice * R * n + e]);
            float& all = total[e / n * pitch + e % n];
            all = split == 0 ? sum : __fadd_rn(all, sum);
        }
        __syncthreads();
    }
}

// total[r · pitch + col] = the sum of the splits of row row0 + r, in their order.
__device__ __forceinline__ void add_splits(const RowsParams& p, const RowsPhase& phase, int row0, int rows, int pitch,
                                           float* total) {
    const int across = pitch / 4;
    const long long matrix = static_cast<long long>(p.rows) * phase.lda;
    for (int quad = threadIdx.x; quad < rows * across; quad += ROWS_THREADS) {
        const int r = quad / across, col = quad % across * 4, n = lanes_from(col, phase.n);
        const float* const from = element(phase.a, phase.lda, row0 + r, col);
        float4 sum = load_quad(from, n);
        // Several loads are under way before the first is needed.
#pragma unroll 4
        for (int split = 1; split < phase.splits; ++split) {
            const float4 s = load_quad(from + split * matrix, n);
            sum = make_float4(__fadd_rn(sum.x, s.x), __fadd_rn(sum.y, s.y), __fadd_rn(sum.z, s.z), __fadd_rn(sum.w, s.w));
        }
        *reinterpret_cast<float4*>(total + r * pitch + col) = sum;
    }
    __syncthreads();
}

// Calls run(epilogue) with the hand-written epilogue of the phase.
template <class Run>
__device__ __forceinline__ void with_hand_written(const RowsPhase& phase, Run run) {
    switch (phase.epilogue) {
        case EPILOGUE_BIAS: run(Bias()); break;
        case EPILOGUE_BIAS_RELU: run(BiasRelu()); break;
        case EPILOGUE_BIAS_TANH: run(BiasTanh()); break;
        case EPILOGUE_RELU_BACKWARD: run(ReluBackward()); break;
        case EPILOGUE_TANH_BACKWARD: run(TanhBackward()); break;
        case EPILOGUE_BERNOULLI: run(Bernoulli(phase.program)); break;
    }
}

template <class Epilogue>
__device__ __forceinline__ void run_hand_written(const SmallProgram& program, const Epilogue& epilogue, int row, int col,
                                                 int n, float4 s, float& sum) {
    float4 x = splat(0.f), b = splat(0.f);
    if constexpr (Epilogue::FULL != NO_OPERAND) {
        const Input& full = program.inputs[Epilogue::FULL];
        x = load_quad(element(full.ptr, full.stride, row, col), n);
    }
    if constexpr (Epilogue::ROW != NO_OPERAND) b = load_quad(program.inputs[Epilogue::ROW].ptr + col, n);
    const Output& out = program.outputs[0];
    store_quad(element(out.ptr, out.stride, row, col), epilogue(s, x, b, n, sum), n);
}

// What becomes of the rows of a product, or a program without one. `group` threads interpret at a time.
__device__ __forceinline__ void finish_rows(const RowsParams& p, const RowsPhase& phase, int row0, int rows, int pitch,
                                            const float* total, float* scratch) {
    const int thread = threadIdx.x, across = (phase.n + 3) / 4, quads = rows * across;
    const bool interpreted = phase.epilogue == EPILOGUE_PROGRAM;
    const int group = interpreted ? phase.group : ROWS_THREADS;
    const StepValues* const values = p.clock.table + (interpreted ? p.clock.ctl->now : 0);
    float sums[MAX_SUMS] = {};
    const auto each_quad = [&](auto&& run) {
#pragma unroll 1
        for (int quad = thread; quad < quads; quad += group) {
            const int r = quad / across, col = quad % across * 4;
            float4 s = splat(0.f);
            if (phase.a.there()) s = *reinterpret_cast<const float4*>(total + r * pitch + col);
            run(row0 + r, col, lanes_from(col, phase.n), s);
        }
    };
    const auto compiled = [&](auto& program) {
        each_quad([&](int row, int col, int n, float4 s) { program.quad(row, col, n, s, sums); });
    };
    if (thread < group) {
        if (!interpreted) {
            with_hand_written(phase, [&](auto epilogue) {
                each_quad([&](int row, int col, int n, float4 s) {
                    run_hand_written(phase.program, epilogue, row, col, n, s, sums[0]);
                });
            });
        } else if (!with_compiled(phase.program, *values, compiled)) {
            const QuadRegs regs{reinterpret_cast<float4*>(scratch) + thread, group};
            program_uniform(phase.program, *values, regs);
            each_quad([&](int row, int col, int n, float4 s) {
                program_quad(phase.program, *values, regs, row, col, n, s, sums);
            });
        }
    }
    program_sums(phase.program, sums, scratch, thread, ROWS_THREADS, blockIdx.x);
}

template <int R>
__device__ __forceinline__ void run_rows(const RowsParams& p, float* shared) {
    copy_ahead(p, shared);
    begin_launch();
    cp_async_wait<0>();  // for the others' copies multiply_rows has a barrier
    const int row0 = blockIdx.x * R, rows = min(R, p.rows - row0);
#pragma unroll 1
    for (int i = 0; i < p.phases_len; ++i) {
        const RowsPhase& phase = p.phases[i];
        const int pitch = (phase.n + 3) / 4 * 4;
        float* const total = shared;                 // [R][pitch]
        float* const scratch = shared + R * pitch;   // of the product, then of the program
        if (phase.b.there()) multiply_rows<R>(phase, shared + phase.ahead, row0, rows, pitch, total, scratch);
        else if (phase.a.there()) add_splits(p, phase, row0, rows, pitch, total);
        finish_rows(p, phase, row0, rows, pitch, total, scratch);
        // What this phase has written is there for the next one, and the shared memory is free.
        __syncthreads();
    }
}

ELBO_KERNEL_RESIDENT(rows_1, 256, 2, RowsParams) {
    ELBO_SHARED(float, shared);
    run_rows<1>(p, shared);
}

ELBO_KERNEL_RESIDENT(rows_4, 256, 2, RowsParams) {
    ELBO_SHARED(float, shared);
    run_rows<4>(p, shared);
}
