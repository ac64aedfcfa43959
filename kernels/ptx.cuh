// The instructions that C++ has no word for: asynchronous copies to shared memory, the tensor cores, and what launches have to
// say to each other.
//
// Every function here has a twin of the same name in the emulator, and no other file but hopper.cuh contains PTX. The
// asynchronous copies and the tensor cores begin with sm_80; for sm_75 a copy is a load and a store, and a kernel that uses
// the tensor cores stops at once (the host never chooses one there).
#pragma once
#include "elbo.cuh"

#ifdef ELBO_EMU
#include "emu_ptx.cuh"
#else

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define ELBO_BEFORE_SM80 1
#endif

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// ---- the model of a block ----
//
// blockIdx.z, asked for anew each time: an address of a model is then worked out where it is used. As an ordinary variable ptxas works
// the addresses of an epilogue out before the main loop of a product, and keeps ten registers and more for them through it.
__device__ __forceinline__ u32 number_of_model() {
    u32 z;
    asm volatile("mov.u32 %0, %%ctaid.z;" : "=r"(z));
    return z;
}

// ---- launches that are set up ahead ----
//
// What every kernel of a plan begins with, before it touches global memory: it waits until the launches that this one comes
// after are over and what they wrote is there, and then lets those that come after this one be set up, to wait in turn. So
// the time that a launch needs to begin passes while the one before still runs. Every thread must call it: a launch whose
// threads had not waited could be over before one that it comes after, and then those behind it would not wait for that.
// (PTX ISA, griddepcontrol: sm_90. Without an edge of that kind in the graph it does nothing, and so on older GPUs.)
__device__ __forceinline__ void begin_launch() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- copies from global to shared memory that pass the registers by ----
//
// A copy whose `valid` is false reads nothing and writes zeros. Copies are collected into groups by
// cp_async_commit(); cp_async_wait<N>() waits until at most N of this thread's groups are still on their way. Other
// threads see the bytes after that and a __syncthreads().

// 16 bytes, both addresses aligned to 16; past the first-level cache, which has nothing to gain from them.
__device__ __forceinline__ void cp_async16(void* shared, const void* global, bool valid) {
#ifdef ELBO_BEFORE_SM80
    *static_cast<float4*>(shared) = valid ? *static_cast<const float4*>(global) : make_float4(0.f, 0.f, 0.f, 0.f);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
#endif
}

// The same also before begin_launch(), of memory that no launch writes which may still run then: one that this one comes after
// may, but it has waited itself for those that it comes after, so what these wrote is there.
__device__ __forceinline__ void cp_async16_ahead(void* shared, const void* global, bool valid) {
    cp_async16(shared, global, valid);
}

// 4 bytes, for what is not aligned and for transposing.
__device__ __forceinline__ void cp_async4(void* shared, const void* global, bool valid) {
#ifdef ELBO_BEFORE_SM80
    *static_cast<float*>(shared) = valid ? *static_cast<const float*>(global) : 0.f;
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(valid ? 4 : 0)
                 : "memory");
#endif
}

__device__ __forceinline__ void cp_async_commit() {
#ifndef ELBO_BEFORE_SM80
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N>
__device__ __forceinline__ void cp_async_wait() {
#ifndef ELBO_BEFORE_SM80
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// ---- matrices of 8 × 8 16-bit numbers from shared memory to the registers of a warp ----
//
// Lane l passes the address of a row of 8 numbers (16 bytes): lanes 0–7 the rows of matrix 0, lanes 8–15 those of
// matrix 1, and so on. In matrix i lane l then holds in r[i] elements 2(l mod 4) and 2(l mod 4) + 1 of row l / 4; with
// `trans`, of column l / 4.

__device__ __forceinline__ void ldmatrix_x4(u32 (&r)[4], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(u32 (&r)[4], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(u32 (&r)[2], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

// ---- tensor cores: d += a · b for one warp, sums in f32 ----
//
// With g = lane / 4 and t = lane mod 4 a lane holds, of the 16 × 8 sums, d[0], d[1] in row g and d[2], d[3] in row
// g + 8, at columns 2t and 2t + 1.

// a: [16, 16]; a[0], a[1] are rows g and g + 8 at columns 2t, 2t + 1; a[2], a[3] the same rows 8 columns on.
// b: [16, 8]; b[0] is column g at rows 2t, 2t + 1; b[1] the same 8 rows on. The lower half of a word comes first.
__device__ __forceinline__ void mma_m16n8k16_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef ELBO_BEFORE_SM80
    __trap();
#else
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// a: [16, 8]; a[0], a[1] are rows g and g + 8 at column t; a[2], a[3] the same rows at column t + 4.
// b: [8, 8]; b[0] is column g at row t, b[1] at row t + 4. The operands are f32 bits of which the hardware ignores the
// lower 13: round them first.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef ELBO_BEFORE_SM80
    __trap();
#else
    asm(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// x with 10 bits of mantissa, to nearest, ties away from zero.
__device__ __forceinline__ u32 round_to_tf32(float x) {
#ifdef ELBO_BEFORE_SM80
    return __float_as_uint(x);
#else
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}

// Two f32 as bf16 in one word, each to nearest, ties to even.
__device__ __forceinline__ u32 pack_bf16(float lo, float hi) {
#ifdef ELBO_BEFORE_SM80
    return __float_as_uint(lo) >> 16 | (__float_as_uint(hi) & 0xffff0000u);
#else
    u32 word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(hi), "f"(lo));
    return word;
#endif
}

__device__ __forceinline__ float bf16_to_float(u16 x) {
    return __uint_as_float(static_cast<u32>(x) << 16);
}

#endif
