// Twins of the PTX in kernels/ptx.cuh: asynchronous copies, ldmatrix, and the tensor cores' matrix product.
//
// An asynchronous copy happens as late as it may: at the wait. Until then its destination holds NaN, so a kernel that
// reads too early shows it. Fragment layouts are those of the PTX ISA, section "Matrix Fragments for mma".
#pragma once
#include "emu.cuh"

inline u32 number_of_model() { return blockIdx.z; }

namespace emu {
void begin_launch();
}

// A launch that was set up ahead may touch no global memory before, and no thread of it may end without.
inline void begin_launch() { emu::begin_launch(); }

// ---- cp.async ----

// `valid` false: the destination becomes zero and the source is not read.
inline void cp_async16(void* shared, const void* global, bool valid, EMU_SITE_ARGUMENTS) {
    emu::async_copy(shared, global, 16, valid, false, file, line);
}
inline void cp_async4(void* shared, const void* global, bool valid, EMU_SITE_ARGUMENTS) {
    emu::async_copy(shared, global, 4, valid, false, file, line);
}
// Allowed before begin_launch() too, if the launches that may still run then have written nothing of it.
inline void cp_async16_ahead(void* shared, const void* global, bool valid, EMU_SITE_ARGUMENTS) {
    emu::async_copy(shared, global, 16, valid, true, file, line);
}
inline void cp_async_commit() { emu::async_commit(); }
// Waits until at most N of the committed groups are pending.
template <int N>
void cp_async_wait() {
    emu::async_wait(N);
}
inline void cp_async_wait_all() { emu::async_wait_all(); }

// ---- 16-bit floats ----

inline float bf16_to_float(u16 a) { return __uint_as_float(u32(a) << 16); }

// Round to nearest, ties to even; NaN becomes 0x7fff, as cvt.rn.bf16x2 gives it.
inline u16 emu_float_to_bf16(float a) {
    if (a != a) return 0x7fff;
    u32 bits = __float_as_uint(a);
    return static_cast<u16>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline u32 pack_bf16(float lo, float hi) { return emu_float_to_bf16(lo) | u32(emu_float_to_bf16(hi)) << 16; }

// cvt.rna.tf32: 10 bits of mantissa, ties away from zero. The 13 low bits of the result are zero.
inline u32 round_to_tf32(float a) {
    if (a != a) return 0x7fffffff;
    u32 bits = __float_as_uint(a);
    if ((bits & 0x7f800000) == 0x7f800000) return bits;
    return (bits + 0x1000) & 0xffffe000;
}

// ---- ldmatrix: 8×8 tiles of 16-bit elements, from shared memory to the layout that mma wants ----

namespace emu {
void load_matrices(u32* r, int count, bool transposed, const void* row, const char* what, const char* file, int line);
void mma_16bit(float* d, const u32* a, const u32* b, int k, bool bf16, const char* what, const char* file, int line);
void mma_tf32(float* d, const u32* a, const u32* b, const char* what, const char* file, int line);
}  // namespace emu

// Lane 8i + j gives the address of row j of tile i. In the result, register i of lane l is tile i's elements
// (l / 4, 2 (l mod 4)) and the one right of it; transposed: (2 (l mod 4), l / 4) and the one below it.
inline void ldmatrix_x4(u32 (&r)[4], const void* shared_row, EMU_SITE_ARGUMENTS) {
    emu::load_matrices(r, 4, false, shared_row, "ldmatrix_x4", file, line);
}
inline void ldmatrix_x4_trans(u32 (&r)[4], const void* shared_row, EMU_SITE_ARGUMENTS) {
    emu::load_matrices(r, 4, true, shared_row, "ldmatrix_x4_trans", file, line);
}
inline void ldmatrix_x2(u32 (&r)[2], const void* shared_row, EMU_SITE_ARGUMENTS) {
    emu::load_matrices(r, 2, false, shared_row, "ldmatrix_x2", file, line);
}
inline void ldmatrix_x2_trans(u32 (&r)[2], const void* shared_row, EMU_SITE_ARGUMENTS) {
    emu::load_matrices(r, 2, true, shared_row, "ldmatrix_x2_trans", file, line);
}

// ---- mma.sync: d += a · b with a [16, k] row-major, b [k, 8] column-major, d [16, 8] ----

inline void mma_m16n8k16_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMU_SITE_ARGUMENTS) {
    emu::mma_16bit(d, a, b, 16, true, "mma_m16n8k16_bf16", file, line);
}
inline void mma_m16n8k16_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMU_SITE_ARGUMENTS) {
    emu::mma_16bit(d, a, b, 16, false, "mma_m16n8k16_f16", file, line);
}
inline void mma_m16n8k8_f16(float (&d)[4], const u32 (&a)[2], const u32 (&b)[1], EMU_SITE_ARGUMENTS) {
    emu::mma_16bit(d, a, b, 8, false, "mma_m16n8k8_f16", file, line);
}
// The hardware ignores the 13 low bits of the operands.
inline void mma_m16n8k8_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2], EMU_SITE_ARGUMENTS) {
    emu::mma_tf32(d, a, b, "mma_m16n8k8_tf32", file, line);
}
