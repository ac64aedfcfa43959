// How a matrix lies in memory and which boxes are copied from it: what the emulated cuTensorMapEncodeTiled makes, and what
// tile copies read. Two dimensions of 16-bit elements are what can be copied here.
#pragma once
#include <cstdint>

#include "emu_vector.cuh"

namespace emu {

struct TiledMap {
    u64 mark;
    const unsigned char* address;
    u64 size[2];    // elements of a row, rows
    u64 stride;     // bytes from row to row
    u32 box[2];     // likewise
    u32 swizzle_bits;  // 0; 1, 2, 3 for swizzles of 32, 64, 128 bytes

    static constexpr u64 MARK = 0x70616d20726f736e;

    u32 box_bytes() const { return box[0] * box[1] * 2; }
    // False: this is none.
    bool decode(const u64 (&words)[16]);
    void encode(u64 (&words)[16]) const;
};
static_assert(sizeof(TiledMap) <= 128);

}  // namespace emu
