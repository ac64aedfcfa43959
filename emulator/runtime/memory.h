// Device memory: allocations with poison inside and guards outside.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emu {

// Bytes of fresh memory. As f32, f64, f16 and bf16 they are NaN, as an index they are out of range.
constexpr int POISON = 0xff;

// Guards hold another pattern, 0xfff1 repeated, which is NaN as well: reading one shows, and so does writing poison.
void fill_guard(void* begin, size_t bytes);
bool guard_is_whole(const void* begin, size_t bytes);

// Null when the emulated device's memory is used up.
void* allocate(size_t bytes);
// False: no allocation begins there.
bool release(void* memory);

// Bytes of the device, and of those, bytes that are free.
size_t total_memory();
size_t free_memory();

// Does [p, p + bytes) lie in one allocation?
bool is_allocated(const void* p, size_t bytes);

// Empty, or which allocation's guards somebody wrote to. Repairs them, so that each stray write is reported once.
std::string check_allocations();

// The range of addresses that allocations come from.
const unsigned char* memory_begin();
const unsigned char* memory_end();

}  // namespace emu
