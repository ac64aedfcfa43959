// What the files about Hopper's instructions share: mbarrier.cpp, tile.cpp (copies), wgmma.cpp (products), and what block.cpp
// asks them.
#pragma once
#include <cstdint>
#include <string>

#include "block.h"
#include "emu_hopper.cuh"

namespace emu::hopper {

// ---- for block.cpp ----

void begin_block();
// Finishes one of the copies that are on their way; false: there is none.
bool finish_a_copy();
// What the block has left undone although all of its threads have ended; empty: nothing.
std::string left_undone();
// What a thread in mbarrier_wait waits for.
std::string missing(const Thread& waiting);

// ---- among each other ----

// Bytes [begin, end) of shared memory.
struct Range {
    const unsigned char *begin, *end;
    bool meets(const Range& other) const { return begin < other.end && other.begin < end; }
};

// "byte 512" of shared memory.
std::string byte_of(const void* p);
// The inverse of shared_address; the result may lie outside of the block's memory.
unsigned char* at_shared_address(u32 address);
// Where 16 bytes at this address lie under a swizzle: bits 4 … 4 + bits − 1 xor the `bits` bits from 7 on.
inline u32 swizzled(u32 address, unsigned bits) { return address ^ ((address >> 7 & ((1u << bits) - 1)) << 4); }

// mbarrier.cpp. A copy starts: the number of the phase that it belongs to, after checks.
uint64_t phase_for_copy(u64* barrier, const Site& site);
// Its bytes have come; `stamp` is what race::write_aside gave for its destination.
void bytes_came(const u64* barrier, unsigned bytes, unsigned writer, uint32_t stamp);

// tile.cpp. Bytes that copies of this phase of a barrier still have to bring, and in `site` where one of them was started; the
// site of a copy to the range, or null.
unsigned long long bytes_on_their_way(const u64* barrier, uint64_t phase, Site& site);
const Site* copy_into(const Range& range);
// What copies and products see of shared memory: threads' writes come there by fence_proxy_async.
const unsigned char* aside(const unsigned char* p);
void begin_copies();

// wgmma.cpp. The site of a product that reads the range and has not been waited for, or null.
const Site* product_of(const Range& range);
void begin_products();
std::string unfinished_product();

}  // namespace emu::hopper
