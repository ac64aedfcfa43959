// The softmax of every row, its logarithm, and the gradients of both. Twin of src/engine/steps/softmax.rs.
//
// A team of threads shares a row, each thread every team-th element of it: a warp, or a whole block where rows are long.
//
// Launch:
//   team    = 32 if out.cols ≤ 1024, else 256
//   threads = 256, shared = 4 · (256 / 32 + 1) bytes
//   grid    = ⌈out.rows · team / 256⌉
#include "params.cuh"
#include "ptx.cuh"
#include "quad.cuh"
#include "reduce_block.cuh"

// The threads that share a row.
struct Team {
    int size, thread, row;
    float* shared;

    __device__ __forceinline__ Team(int cols, float* shared) : shared(shared) {
        size = cols <= 1024 ? 32 : 256;
        thread = static_cast<int>(threadIdx.x) % size;
        row = static_cast<int>(blockIdx.x) * (256 / size) + static_cast<int>(threadIdx.x) / size;
    }

    // The fold over the team, in all of its threads.
    template <class Fold>
    __device__ __forceinline__ float fold(float v, Fold fold) const {
        if (size == 32) return __shfl_sync(~0u, fold_warp(v, fold), 0);
        v = fold_block(v, fold, shared, thread, size);
        // Behind the warps' folds; the next fold's barriers come before it is written again.
        if (thread == 0) shared[256 / 32] = v;
        __syncthreads();
        return shared[256 / 32];
    }
};

// y = e^(x − m) / Σ e^(x − m), or its logarithm (x − m) − ln Σ e^(x − m), with m = max x.
ELBO_KERNEL(softmax_rows, 256, SoftmaxParams) {
    ELBO_SHARED(float, shared);
    begin_launch();
    const int n = p.out.cols;
    const Team team(n, shared);
    if (team.row >= p.out.rows) return;
    const float* x = element(p.x.ptr, p.x.stride, team.row, 0);
    float* y = element(p.out.ptr, p.out.stride, team.row, 0);

    float most = Max::identity();
    for (int c = team.thread; c < n; c += team.size) most = math::max(most, x[c]).v;
    const f32 m = team.fold(most, Max());
    f32 sum = 0.0f;
    for (int c = team.thread; c < n; c += team.size) sum = sum + math::exp(x[c] - m);
    sum = team.fold(sum.v, Sum());
    const f32 log_sum = math::log(sum);
    for (int c = team.thread; c < n; c += team.size) {
        const f32 below = x[c] - m;
        y[c] = p.log ? (below - log_sum).v : (math::exp(below) / sum).v;
    }
}

// dx = y (dy − Σ y dy), or of the logarithm dy − e^y Σ dy; p.x is y.
ELBO_KERNEL(softmax_grad_rows, 256, SoftmaxParams) {
    ELBO_SHARED(float, shared);
    begin_launch();
    const int n = p.out.cols;
    const Team team(n, shared);
    if (team.row >= p.out.rows) return;
    const float* y = element(p.x.ptr, p.x.stride, team.row, 0);
    const float* dy = element(p.dy.ptr, p.dy.stride, team.row, 0);
    float* dx = element(p.out.ptr, p.out.stride, team.row, 0);

    f32 sum = 0.0f;
    for (int c = team.thread; c < n; c += team.size) sum = sum + (p.log ? f32(dy[c]) : f32(y[c]) * dy[c]);
    sum = team.fold(sum.v, Sum());
    for (int c = team.thread; c < n; c += team.size) {
        dx[c] = p.log ? (f32(dy[c]) - math::exp(y[c]) * sum).v : (f32(y[c]) * (f32(dy[c]) - sum)).v;
    }
}
