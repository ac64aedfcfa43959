// Hopper's own instructions (sm_90a): barriers in shared memory that count bytes, copies of whole tiles, and matrix products
// of four warps that read shared memory by themselves.
//
// ptx.cuh has the instructions of all GPUs from sm_80 on. Those here exist on compute capability 9.0 and on no other, earlier
// or later; files that include this are called *_sm90a.cu, and build.rs compiles them for Hopper alone. Every function has a
// twin in the emulator (emulator/include/emu_hopper.cuh). "PTX ISA" below is the manual "Parallel Thread Execution ISA",
// release 9.0, with the titles of its sections, since their numbers change with every release.
//
// Three things run beside the threads here, and are waited for in three ways:
//
//   a tile copy (TMA)       started by one thread; counts its bytes off an mbarrier       mbarrier_wait
//   a product (wgmma)       started by 128 threads; reads shared memory, adds to d        wgmma_wait
//   both of them            see what threads wrote to shared memory only after            fence_proxy_async
#pragma once
#include "elbo.cuh"

#ifdef ELBO_EMU
#include "emu_hopper.cuh"
#else

#include "ptx.cuh"

// How a matrix lies in memory and which part of it is copied at a time: what cuTensorMapEncodeTiled makes of it on the host. It
// is a field of a kernel's parameters, from where the copies read it.
struct __align__(64) TensorMap {
    u64 opaque[16];
};

// ---- mbarrier: a barrier that counts arrivals and bytes (PTX ISA, "mbarrier" and its operations) ----
//
// It goes through phases 0, 1, 2, … A phase is complete when as many threads have arrived as the barrier was made for and
// as many bytes have come as were announced. Whoever waits names the parity of a phase, that is, 0 for an even one: the wait
// is over when the phase before the present one has that parity. So a wait for parity 1 passes a new barrier at once.

__device__ __forceinline__ void mbarrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

// Lets copies see barriers that this thread has made. The block's other threads see them after a __syncthreads().
__device__ __forceinline__ void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}

// Announces bytes of copies to come, then arrives.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}

// try_wait gives up after some time that the hardware chooses, so it is asked again.
__device__ __forceinline__ void mbarrier_wait(u64* barrier, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}"
            : "=r"(done)
            : "r"(shared_address(barrier)), "r"(parity)
            : "memory");
    } while (done == 0);
}

// ---- proxies (PTX ISA, "Memory Consistency Model: Proxies" and "membar / fence") ----
//
// Tile copies and products reach shared memory by another way than the threads' loads and stores. What this thread stored, or
// saw others store, comes before what is started after this.
__device__ __forceinline__ void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- tile copies (PTX ISA, "cp.async.bulk.tensor"; "Tensors" has boxes and swizzles) ----
//
// to[y'][x'] = matrix[y + y'][x + x'] for the box of the map, swizzled as the map says; zero outside of the matrix. x and y
// count elements. When it is done, all bytes of the box, those of zeros too, are counted off the barrier.
__device__ __forceinline__ void tma_load_2d(void* to, const TensorMap& map, u64* barrier, int x, int y) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(
            shared_address(to)),
        "l"(&map), "r"(shared_address(barrier)), "r"(x), "r"(y)
        : "memory");
}

// ---- products of a warpgroup (PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions") ----
//
// A warpgroup is four warps, the first of which has a number that is a multiple of four. Its 128 threads start a product
// together. It runs until wgmma_wait; until then the accumulators and the operands belong to it.

// Before the first product, and before one whose accumulators the threads have touched since the last ("wgmma.fence").
template <int COUNT>
__device__ __forceinline__ void wgmma_fence(float (&d)[COUNT]) {
    // No access to the accumulators may be moved past this by the compiler.
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(d[i])::"memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Makes a group of the products started since the last one ("wgmma.commit_group").
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Waits until at most N of the groups are still running ("wgmma.wait_group"). Only after N = 0 may `d` be read.
template <int N, int COUNT>
__device__ __forceinline__ void wgmma_wait(float (&d)[COUNT]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Where an operand lies in shared memory ("Matrix Descriptor Format"; "Shared Memory Matrix Layout" has the layouts):
//
//   bits  0–13  its address / 16           32–45  the stride / 16
//        16–29  the leading distance / 16  62–63  swizzle: 1 is that of 128 bytes
//
// Both operands are made of rows of 128 bytes, 64 numbers, swizzled in groups of 8 rows, 1024 bytes, that begin at multiples of
// 1024: chunk c (16 bytes) of row r lies at place c xor r mod 8. `stride` is from one such group to the next. `leading` counts
// where an operand is longer in the direction of its rows than they are: from one set of rows to the next.
__device__ __forceinline__ u64 wgmma_operand(const void* shared, u32 leading, u32 stride) {
    const u64 address = (shared_address(shared) & 0x3ffff) >> 4;
    return address | static_cast<u64>(leading >> 4) << 16 | static_cast<u64>(stride >> 4) << 32 | 1ull << 62;
}

// d += a · b for a [64, 16], whose rows run along k, and b [16, 128], whose rows run along its columns ("wgmma.mma_async").
// With g = lane / 4 and t = lane mod 4, thread 32 w + lane of the warpgroup has in d[4 j + e] the element of
//
//   row 16 w + g + 8 (e / 2),   column 8 j + 2 t + e mod 2.
__device__ __forceinline__ void wgmma_m64n128k16_bf16(float (&d)[64], u64 a, u64 b) {
    asm volatile(
        "{\n.reg .pred add;\nsetp.ne.b32 add, 1, 0;\nwgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
        "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
        "}, %64, %65, add, 1, 1, 0, 1;\n}"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]),
          "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
          "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]),
          "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
          "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]),
          "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
          "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
          "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
          "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]),
          "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
          "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]),
          "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
          "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]),
          "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
          "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]),
          "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
        : "l"(a), "l"(b)
        : "memory");
}

#endif
