// Twins of kernels/hopper.cuh: mbarriers, tile copies (TMA) and the products of a warpgroup (wgmma).
//
// What runs beside the threads happens as late as it may, and until then what it will write is NaN:
//
//   a tile copy    when no thread can go on (under a random schedule sometimes earlier), in any order; the map, the boxes beyond
//                  the matrix, the swizzle and the bytes are those of the PTX ISA
//   a product      at the wait that a warp needs before it may read its sums, for the 16 rows of that warp; operands are read then
//
// Errors, each with the line: fewer or more arrivals or bytes than a barrier was made or announced for, a barrier that was not
// made, was overwritten, or that copies may not see yet (fence_mbarrier_init); a copy to where another copy or a product is
// still at work, or that outlives its block; a product without all four warps, with different operands, without wgmma_fence
// before, on operands that are still on their way, or written by threads with no fence_proxy_async since; accumulators that
// were written before the wait, and products that nobody waits for.
//
// What is not modelled: try_wait that gives up (the wait here ends when the phase does); fence_proxy_async counts for what all
// threads have written until then, though on a GPU only for what its thread wrote or was told of; a fence is asked for between
// writing by threads and reading by products, not between reading by threads and copying over it; wgmma_fence is asked for after
// every wait, though a GPU needs it only if registers were touched; clusters; other element types and shapes; operands that are not swizzled; copies from shared
// to global memory. The sums are added as for mma.sync (runtime/tensor.cpp), whose last bits differ from the hardware's.
#pragma once
#include "emu_ptx.cuh"

// As in the driver's CUtensorMap, opaque: cuTensorMapEncodeTiled of the emulated driver fills it.
struct alignas(64) TensorMap {
    u64 opaque[16];
};

namespace emu {

u32 shared_address(const void* p);

void mbarrier_init(u64* barrier, u32 arrivals, const char* file, int line);
void mbarrier_arrive(u64* barrier, long long bytes, const char* what, const char* file, int line);
void mbarrier_wait(u64* barrier, u32 parity, const char* file, int line);
void mbarriers_become_visible();
void proxy_fence();

void tile_copy(void* to, const TensorMap& map, u64* barrier, int x, int y, const char* file, int line);

void warpgroup_fence(const char* file, int line);
void warpgroup_product(float* d, int columns, u64 a, u64 b, const char* what, const char* file, int line);
void warpgroup_commit(const char* file, int line);
void warpgroup_wait(unsigned pending_groups, const char* file, int line);

}  // namespace emu

// Addresses in shared memory as the instructions name them. The block's own memory is promised to begin at a multiple of 16, and
// here it begins at none of more.
inline u32 shared_address(const void* p) { return emu::shared_address(p); }

inline void mbarrier_init(u64* barrier, u32 arrivals, EMU_SITE_ARGUMENTS) {
    emu::mbarrier_init(barrier, arrivals, file, line);
}
inline void fence_mbarrier_init() { emu::mbarriers_become_visible(); }
inline void mbarrier_arrive(u64* barrier, EMU_SITE_ARGUMENTS) {
    emu::mbarrier_arrive(barrier, 0, "mbarrier_arrive", file, line);
}
inline void mbarrier_arrive_expect_tx(u64* barrier, u32 bytes, EMU_SITE_ARGUMENTS) {
    emu::mbarrier_arrive(barrier, bytes, "mbarrier_arrive_expect_tx", file, line);
}
inline void mbarrier_wait(u64* barrier, u32 parity, EMU_SITE_ARGUMENTS) {
    emu::mbarrier_wait(barrier, parity, file, line);
}
inline void fence_proxy_async() { emu::proxy_fence(); }

inline void tma_load_2d(void* to, const TensorMap& map, u64* barrier, int x, int y, EMU_SITE_ARGUMENTS) {
    emu::tile_copy(to, map, barrier, x, y, file, line);
}

template <int COUNT>
void wgmma_fence(float (&)[COUNT], EMU_SITE_ARGUMENTS) {
    emu::warpgroup_fence(file, line);
}
inline void wgmma_commit(EMU_SITE_ARGUMENTS) { emu::warpgroup_commit(file, line); }
template <int N, int COUNT>
void wgmma_wait(float (&)[COUNT], EMU_SITE_ARGUMENTS) {
    emu::warpgroup_wait(N, file, line);
}

inline u64 wgmma_operand(const void* shared, u32 leading, u32 stride) {
    u64 address = (emu::shared_address(shared) & 0x3ffff) >> 4;
    return address | u64(leading >> 4) << 16 | u64(stride >> 4) << 32 | 1ull << 62;
}
inline void wgmma_m64n128k16_bf16(float (&d)[64], u64 a, u64 b, EMU_SITE_ARGUMENTS) {
    emu::warpgroup_product(d, 128, a, b, "wgmma_m64n128k16_bf16", file, line);
}
