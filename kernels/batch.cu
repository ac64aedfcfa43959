// The batch: out[i, j] = data[order(cursor + i), j] / 255, rows of the resident data set through the epoch's
// permutation, or in their own order where the step does not shuffle. Twin of src/engine/steps/batch.rs.
//
// Launch:
//   threads = 256, shared = 0
//   grid    = (max(out.rows, 1), max(⌈out.cols / 1024⌉, 1))
//
// A block takes 1024 columns of a row. Every thread works out the permuted row by itself, which is no slower than
// waiting for one that does. A thread reads 4 bytes and writes 4 floats, because so both the reads and the writes of a
// warp lie side by side; with 16 bytes to a thread its four writes would not.
#include "params.cuh"
#include "philox.cuh"
#include "quad.cuh"

__device__ __forceinline__ float pixel(u8 byte) { return (f32(static_cast<float>(byte)) / 255.0f).v; }

// bytes[0 .. n] as pixels, and zeros for the lanes beyond.
__device__ __forceinline__ float4 load_pixels(const u8* bytes, int n) {
    if (n == 4 && (reinterpret_cast<u64>(bytes) & 3) == 0) {
        const uchar4 b = *reinterpret_cast<const uchar4*>(bytes);
        return make_float4(pixel(b.x), pixel(b.y), pixel(b.z), pixel(b.w));
    }
    float4 v = splat(0.0f);
    if (n > 0) v.x = pixel(bytes[0]);
    if (n > 1) v.y = pixel(bytes[1]);
    if (n > 2) v.z = pixel(bytes[2]);
    if (n > 3) v.w = pixel(bytes[3]);
    return v;
}

ELBO_KERNEL(batch, 256, BatchParams) {
    const u32 i = blockIdx.x;
    const int col = 4 * (blockIdx.y * blockDim.x + threadIdx.x);
    if (i >= static_cast<u32>(p.out.rows) || col >= p.out.cols) return;

    const StepValues values = p.clock.table[p.clock.ctl->now];
    const u32 position = values.cursor + i;
    const int n = lanes_from(col, p.out.cols);
    float4 pixels = splat(math::from_bits(math::NAN_BITS).v);
    // The host lets no step begin whose batch passes the end of the data. If one did, NaN would show it.
    if (position < p.data_rows) {
        const Permutation order(values.seed, values.epoch, p.data_rows);
        const u32 row = values.shuffle ? order.at(position) : position;
        pixels = load_pixels(p.data + (static_cast<u64>(row) * p.out.cols + col), n);
    }
    store_quad(element(p.out.ptr, p.out.stride, i, col), pixels, n);
}
