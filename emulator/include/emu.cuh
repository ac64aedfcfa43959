// CUDA C++ for the system's C++ compiler: what kernels/elbo.cuh includes when ELBO_EMU is defined.
//
// Read in this order: emu_vector.cuh (types), emu_runtime.cuh (the seam to the runtime), this file (kernels, barriers,
// warps, atomics), emu_math.cuh (arithmetic), emu_ptx.cuh (twins of kernels/ptx.cuh).
//
// Every function that threads meet in takes the caller's file and line as default arguments, so that a report can name
// them. What CUDA leaves undefined is an error here where that can be seen.
#pragma once
#include <math.h>
#include <string.h>

#include "emu_math.cuh"
#include "emu_runtime.cuh"

#define __device__
#define __global__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// `__shared__` stays undefined: shared memory is dynamic and taken with ELBO_SHARED.

constexpr int warpSize = 32;

// A kernel: `ELBO_KERNEL(name, threads per block, Params) { … p.field … }`.
#define ELBO_KERNEL(name, threads, Params)                                                              \
    static_assert(sizeof(Params) <= 4096, "parameters of a kernel are at most 4096 bytes");             \
    static_assert((threads) <= 1024, "a block has at most 1024 threads");                               \
    static void name(const Params& p);                                                                  \
    static void name##_run(const void* params) { name(*static_cast<const Params*>(params)); }           \
    static emu::Kernel name##_kernel(#name, name##_run, sizeof(Params), threads, __FILE__);             \
    static void name([[maybe_unused]] const Params& p)

// The block's dynamic shared memory, 16-byte aligned, as an array of T.
#define ELBO_SHARED(T, name) T* const name = reinterpret_cast<T*>(emu::shared_memory)

// ---- barriers of the block ----

inline void __syncthreads(EMU_SITE_ARGUMENTS) { emu::block_barrier("__syncthreads", false, file, line); }
inline int __syncthreads_count(int predicate, EMU_SITE_ARGUMENTS) {
    return emu::block_barrier("__syncthreads_count", predicate != 0, file, line).count;
}
inline int __syncthreads_and(int predicate, EMU_SITE_ARGUMENTS) {
    return emu::block_barrier("__syncthreads_and", predicate != 0, file, line).all;
}
inline int __syncthreads_or(int predicate, EMU_SITE_ARGUMENTS) {
    return emu::block_barrier("__syncthreads_or", predicate != 0, file, line).any;
}

inline void __threadfence() { emu::thread_fence(); }
inline void __threadfence_block() {}
inline void __threadfence_system() { emu::thread_fence(); }

[[noreturn]] inline void __trap(EMU_SITE_ARGUMENTS) { emu::kernel_fault("__trap", file, line); }
inline void __nanosleep(u32) {}

// ---- warps ----

constexpr u32 FULL_WARP = 0xffffffffu;

inline void __syncwarp(u32 mask = FULL_WARP, EMU_SITE_ARGUMENTS) {
    emu::warp_rendezvous({"__syncwarp", mask, false, true, nullptr}, nullptr, file, line);
}

namespace emu {

// One lane's part in a shuffle: its value, the lane it wants to read (its own when that lies outside the segment).
template <class T>
struct Shuffle {
    T value, result;
    int from;

    static void complete(void* const lanes[32], u32 mask) {
        for (int i = 0; i < 32; ++i) {
            if ((mask >> i & 1) == 0) continue;
            auto* self = static_cast<Shuffle*>(lanes[i]);
            auto* source = static_cast<Shuffle*>(lanes[self->from]);
            // A lane outside the mask has no value to give; poison stands for "undefined".
            if (source == nullptr) {
                memset(&self->result, 0xff, sizeof(T));
            } else {
                self->result = source->value;
            }
        }
    }
};

// Lanes of a segment [first, first + width) exchange values; a source outside it gives the own value back.
template <class T>
T shuffle(const char* what, u32 mask, T value, int from, bool inside, const char* file, int line) {
    Shuffle<T> slot{value, value, inside ? from : lane()};
    warp_rendezvous({what, mask, true, false, Shuffle<T>::complete}, &slot, file, line);
    return slot.result;
}

enum class Vote { BALLOT, ANY, ALL };

struct Ballot {
    bool predicate;
    u32 votes, voters;
    static void complete(void* const lanes[32], u32 mask);
};

u32 ballot(const char* what, u32 mask, bool predicate, u32* voters, const char* file, int line);

}  // namespace emu

template <class T>
T __shfl_sync(u32 mask, T value, int source, int width = 32, EMU_SITE_ARGUMENTS) {
    int first = emu::lane() & ~(width - 1);
    return emu::shuffle("__shfl_sync", mask, value, first + (source & (width - 1)), true, file, line);
}
template <class T>
T __shfl_xor_sync(u32 mask, T value, int lanes, int width = 32, EMU_SITE_ARGUMENTS) {
    int end = (emu::lane() & ~(width - 1)) + width, from = emu::lane() ^ lanes;
    return emu::shuffle("__shfl_xor_sync", mask, value, from, from < end, file, line);
}
template <class T>
T __shfl_down_sync(u32 mask, T value, u32 delta, int width = 32, EMU_SITE_ARGUMENTS) {
    int end = (emu::lane() & ~(width - 1)) + width, from = emu::lane() + static_cast<int>(delta);
    return emu::shuffle("__shfl_down_sync", mask, value, from, from < end, file, line);
}
template <class T>
T __shfl_up_sync(u32 mask, T value, u32 delta, int width = 32, EMU_SITE_ARGUMENTS) {
    int first = emu::lane() & ~(width - 1), from = emu::lane() - static_cast<int>(delta);
    return emu::shuffle("__shfl_up_sync", mask, value, from, from >= first, file, line);
}

inline u32 __ballot_sync(u32 mask, int predicate, EMU_SITE_ARGUMENTS) {
    u32 voters;
    return emu::ballot("__ballot_sync", mask, predicate != 0, &voters, file, line);
}
inline int __any_sync(u32 mask, int predicate, EMU_SITE_ARGUMENTS) {
    u32 voters;
    return emu::ballot("__any_sync", mask, predicate != 0, &voters, file, line) != 0;
}
inline int __all_sync(u32 mask, int predicate, EMU_SITE_ARGUMENTS) {
    u32 voters;
    u32 votes = emu::ballot("__all_sync", mask, predicate != 0, &voters, file, line);
    return votes == voters;
}
// Which lanes run together is not defined since Volta; here, all that have not ended.
inline u32 __activemask() { return emu::live_lanes(); }

// ---- memory ----

// Cache hints change nothing.
template <class T>
T __ldg(const T* p) { return *p; }
template <class T>
T __ldca(const T* p) { return *p; }
template <class T>
T __ldcg(const T* p) { return *p; }
template <class T>
T __ldcs(const T* p) { return *p; }
template <class T>
void __stcg(T* p, T value) { *p = value; }
template <class T>
void __stcs(T* p, T value) { *p = value; }
template <class T>
void __stwb(T* p, T value) { *p = value; }

// Atomics on integers. There are none on floats, because a sum in no fixed order is not wanted anywhere.
#define EMU_ATOMIC(T)                                  \
    T atomicAdd(T* p, T value);                        \
    T atomicSub(T* p, T value);                        \
    T atomicExch(T* p, T value);                       \
    T atomicMin(T* p, T value);                        \
    T atomicMax(T* p, T value);                        \
    T atomicAnd(T* p, T value);                        \
    T atomicOr(T* p, T value);                         \
    T atomicXor(T* p, T value);                        \
    T atomicCAS(T* p, T expected, T value);
EMU_ATOMIC(int)
EMU_ATOMIC(u32)
EMU_ATOMIC(u64)
#undef EMU_ATOMIC
u32 atomicInc(u32* p, u32 limit);
u32 atomicDec(u32* p, u32 limit);
