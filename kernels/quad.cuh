// Quads: up to four neighbouring columns of a row, what one thread reads or writes at a time.
//
// Four floats move as one 16-byte access where the address allows it, one by one where not. Which happens depends on
// the address alone and changes no result.
#pragma once
#include "elbo.cuh"

__device__ __forceinline__ bool aligned16(const void* at) { return (reinterpret_cast<u64>(at) & 15) == 0; }

__device__ __forceinline__ float4 splat(float v) { return make_float4(v, v, v, v); }

// at[0 .. n], and zeros for the lanes beyond.
__device__ __forceinline__ float4 load_quad(const float* at, int n) {
    if (n >= 4 && aligned16(at)) return *reinterpret_cast<const float4*>(at);
    float4 v = splat(0.0f);
    if (n > 0) v.x = at[0];
    if (n > 1) v.y = at[1];
    if (n > 2) v.z = at[2];
    if (n > 3) v.w = at[3];
    return v;
}

// at[0 .. n] = the first n lanes.
__device__ __forceinline__ void store_quad(float* at, float4 v, int n) {
    if (n >= 4 && aligned16(at)) {
        *reinterpret_cast<float4*>(at) = v;
        return;
    }
    if (n > 0) at[0] = v.x;
    if (n > 1) at[1] = v.y;
    if (n > 2) at[2] = v.z;
    if (n > 3) at[3] = v.w;
}

// The address of element (row, col) of a rectangle: in 64 bits, since row · stride may exceed 2³¹.
__device__ __forceinline__ float* element(float* ptr, int stride, int row, int col) {
    return ptr + (static_cast<long long>(row) * stride + col);
}

__device__ __forceinline__ const float* element(const float* ptr, int stride, int row, int col) {
    return ptr + (static_cast<long long>(row) * stride + col);
}

// Columns of the quad that begins at `col`, in a row of `cols`: at most 4.
__device__ __forceinline__ int lanes_from(int col, int cols) { return cols - col < 4 ? cols - col : 4; }

// Whether every quad of a rectangle of `cols` columns has four lanes and may move as one access.
__device__ __forceinline__ bool whole_quads(const float* ptr, int stride, int cols) {
    return aligned16(ptr) && ((stride | cols) & 3) == 0;
}
