// The batch: out[i, j] = data[order(cursor + i), j] / unit, rows of the resident data set through the epoch's
// permutation, or in their own order where the step does not shuffle. Twin of src/engine/steps/batch.rs. With `ahead` the
// rows are those of the next step, which then has not to wait for them: this launch runs beside the others.
//
// Launch:
//   threads = 256, shared = 0
//   grid    = (max(out.rows, 1), max(⌈out.cols / 1024⌉, 1))
//
// A block takes 1024 columns of a row. Every thread works out the permuted row by itself, which is no slower than waiting
// for one that does. A thread reads 4 bytes (or floats) and writes 4 floats, because so both the reads and the writes of a
// warp lie side by side; with 16 bytes to a thread its four writes would not.
#include "params.cuh"
#include "philox.cuh"
#include "ptx.cuh"
#include "quad.cuh"
#include "step_end.cuh"

__device__ __forceinline__ float in_units(float value, float unit) { return (f32(value) / unit).v; }

// values[0 .. n] in units, and zeros for the lanes beyond.
template <class T, class Quad>
__device__ __forceinline__ float4 load_values(const T* values, int n, float unit) {
    if (n == 4 && reinterpret_cast<u64>(values) % sizeof(Quad) == 0) {
        const Quad q = *reinterpret_cast<const Quad*>(values);
        return make_float4(in_units(static_cast<float>(q.x), unit), in_units(static_cast<float>(q.y), unit),
                           in_units(static_cast<float>(q.z), unit), in_units(static_cast<float>(q.w), unit));
    }
    float4 v = splat(0.0f);
    if (n > 0) v.x = in_units(static_cast<float>(values[0]), unit);
    if (n > 1) v.y = in_units(static_cast<float>(values[1]), unit);
    if (n > 2) v.z = in_units(static_cast<float>(values[2]), unit);
    if (n > 3) v.w = in_units(static_cast<float>(values[3]), unit);
    return v;
}

__device__ __forceinline__ void copy_quad(const BatchParams& p, u32 i, int col) {
    const StepValues values = p.clock.table[p.clock.ctl->now + p.ahead];
    const u32 position = values.cursor + i;
    const int n = lanes_from(col, p.out.cols);
    float4 quad = splat(math::from_bits(math::NAN_BITS).v);
    // The host lets no step begin whose batch passes the end of the data. If one did, NaN would show it.
    if (position < p.data_rows) {
        const Permutation order(values.seed, values.epoch, p.data_rows);
        const u32 row = values.shuffle ? order.at(position) : position;
        const void* const data = p.data[blockIdx.z];
        const u64 at = static_cast<u64>(row) * p.out.cols + col;
        quad = p.floats ? load_values<float, float4>(static_cast<const float*>(data) + at, n, p.unit)
                        : load_values<u8, uchar4>(static_cast<const u8*>(data) + at, n, p.unit);
    }
    store_quad(element(p.out.ptr, p.out.stride, i, col), quad, n);
}

ELBO_KERNEL(batch, 256, BatchParams) {
    begin_launch();
    const u32 i = blockIdx.x;
    const int col = 4 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (i < static_cast<u32>(p.out.rows) && col < p.out.cols) copy_quad(p, i, col);
    end_step(p.clock, p.end);
}
