// Copies of tiles from global to shared memory (TMA), and what they and products see of shared memory.
#include <algorithm>
#include <cstring>
#include <vector>

#include "hopper.h"
#include "launch.h"
#include "memory.h"
#include "race.h"
#include "schedule.h"
#include "tensor_map.h"

namespace emu {

namespace hopper {

namespace {

struct Copy {
    TiledMap map;
    unsigned char* to;
    const u64* barrier;
    uint64_t phase;
    int x, y;
    Site site;
    unsigned starter;  // the thread
    uint32_t stamp;

    Range range() const { return {to, to + map.box_bytes()}; }
};

std::vector<Copy> copies;                 // on their way, oldest first
std::vector<unsigned char> seen_aside;    // shared memory as copies and products see it

// The block's memory begins here, for the instructions: a multiple of 16 and of nothing more.
constexpr u32 WINDOW = 1024 + 16;

void write_both(unsigned char* to, const void* from, size_t bytes) {
    memcpy(to, from, bytes);
    memcpy(seen_aside.data() + (to - shared_memory), from, bytes);
}

// 16 bytes at a time, from the rows of the matrix to swizzled places.
void deliver(const Copy& copy) {
    const TiledMap& map = copy.map;
    u32 row_bytes = map.box[0] * 2, base = shared_address(copy.to);
    for (u32 row = 0; row < map.box[1]; ++row) {
        for (u32 at = 0; at < row_bytes; at += 16) {
            u16 chunk[8] = {};
            for (u32 i = 0; i < 8; ++i) {
                long long x = copy.x + static_cast<long long>(at / 2 + i), y = copy.y + static_cast<long long>(row);
                if (x < 0 || y < 0 || x >= static_cast<long long>(map.size[0]) || y >= static_cast<long long>(map.size[1])) {
                    continue;
                }
                memcpy(&chunk[i], map.address + y * static_cast<long long>(map.stride) + 2 * x, 2);
            }
            write_both(at_shared_address(swizzled(base + row * row_bytes + at, map.swizzle_bits)), chunk, sizeof chunk);
        }
    }
}

}  // namespace

unsigned char* at_shared_address(u32 address) { return shared_memory + (static_cast<long long>(address) - WINDOW); }

const unsigned char* aside(const unsigned char* p) { return seen_aside.data() + (p - shared_memory); }

unsigned long long bytes_on_their_way(const u64* barrier, uint64_t phase, Site& site) {
    unsigned long long bytes = 0;
    for (const Copy& copy : copies) {
        if (copy.barrier != barrier || copy.phase != phase) continue;
        bytes += copy.map.box_bytes();
        site = copy.site;
    }
    return bytes;
}

const Site* copy_into(const Range& range) {
    auto found = std::find_if(copies.begin(), copies.end(), [&](const Copy& copy) { return copy.range().meets(range); });
    return found == copies.end() ? nullptr : &found->site;
}

bool finish_a_copy() {
    if (copies.empty()) return false;
    auto chosen = copies.begin() + static_cast<long>(schedule().pick_copy(copies.size()));
    Copy copy = *chosen;
    copies.erase(chosen);
    deliver(copy);
    bytes_came(copy.barrier, copy.map.box_bytes(), copy.starter, copy.stamp);
    return true;
}

void begin_copies() {
    copies.clear();
    seen_aside.assign(shared_memory, shared_memory + shared_size());
}

std::string left_undone() {
    if (!copies.empty()) return copies.front().site.text() + ": the block has ended, and the copy is still on its way";
    return unfinished_product();
}

}  // namespace hopper

using namespace hopper;

u32 shared_address(const void* p) {
    return WINDOW + static_cast<u32>(static_cast<const unsigned char*>(p) - shared_memory);
}

void proxy_fence() {
    if (!seen_aside.empty()) memcpy(seen_aside.data(), shared_memory, seen_aside.size());
    mbarriers_become_visible();
}

void tile_copy(void* to, const TensorMap& encoded, u64* barrier, int x, int y, const char* file, int line) {
    Site site{"tma_load_2d", file, line};
    Thread& self = block().current();
    self.site = site;
    TiledMap map;
    if (!map.decode(encoded.opaque)) {
        fault(Outcome::FAILED, site.text() + ": the map was not made by cuTensorMapEncodeTiled for two dimensions");
    }
    Copy copy{map, static_cast<unsigned char*>(to), barrier, phase_for_copy(barrier, site), x, y, site, self.linear, 0};
    if (!in_shared(to, map.box_bytes())) {
        fault(Outcome::ILLEGAL_ADDRESS, site.text() + ": the box of " + std::to_string(map.box_bytes()) +
                                            " bytes does not fit shared memory at " + byte_of(to));
    }
    if (shared_address(to) % 128 != 0) {
        fault(Outcome::MISALIGNED, site.text() + ": the destination at " + byte_of(to) + " is at address " +
                                       std::to_string(shared_address(to)) + " of shared memory, no multiple of 128");
    }
    if (const Site* other = copy_into(copy.range())) {
        fault(Outcome::FAILED, site.text() + ": into memory that the copy of " + other->text() + " is still writing to");
    }
    if (const Site* reader = product_of(copy.range())) {
        fault(Outcome::FAILED, site.text() + ": over operands of the product of " + reader->text() +
                                   ", which has not been waited for");
    }
    copy.stamp = race::write_aside(to, map.box_bytes());
    std::vector<unsigned char> poison(map.box_bytes(), POISON);
    write_both(copy.to, poison.data(), poison.size());
    copies.push_back(copy);
}

}  // namespace emu
