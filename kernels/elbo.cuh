// What every kernel file includes first: how a kernel is declared, and how it names its memory.
//
// The same text is compiled twice: by nvcc for GPUs, and by the system C++ compiler against the emulator's header
// (emulator/include/emu.cuh, ELBO_EMU defined), which runs the threads of a block as fibers. Three rules make that
// possible:
//
//   1. A kernel takes one struct by value and is declared with ELBO_KERNEL. Its name is unique in the project.
//   2. Shared memory is dynamic and taken with ELBO_SHARED; there is no static __shared__ array. The host passes the
//      size.
//   3. PTX stands in ptx.cuh and hopper.cuh alone, behind small functions that have a twin in the emulator.
//
// No C++ standard header is included, so that fewer host compilers are in the way. Arithmetic that must have the same
// bits as on the CPU is written with __fadd_rn, __fmul_rn, …, which are never fused.
#pragma once

#ifdef ELBO_EMU
#include "emu.cuh"
#define ELBO_KERNEL_RESIDENT(name, threads, blocks, Params) ELBO_KERNEL(name, threads, Params)
#else

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A kernel: `ELBO_KERNEL(name, threads per block, Params) { … p.field … }`.
#define ELBO_KERNEL(name, threads, Params) \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p)

// The same, with the number of blocks that are to fit a multiprocessor together: it bounds the registers of a thread.
#define ELBO_KERNEL_RESIDENT(name, threads, blocks, Params) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(const __grid_constant__ Params p)

// The block's dynamic shared memory, 16-byte aligned, as an array of T.
#define ELBO_SHARED(T, name)                                 \
    extern __shared__ __align__(16) unsigned char elbo_shared[]; \
    T* const name = reinterpret_cast<T*>(elbo_shared)

#endif
