// Device memory is cut from one reserved range of addresses. Around each allocation lie guard bytes, and around those
// inaccessible pages, so a small overrun is found when the kernel ends and a large one at once.
#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

namespace emu {

namespace {

constexpr size_t GUARD = 256;  // also the alignment that cuMemAlloc promises
constexpr size_t PATTERN = 8192;
constexpr size_t DEFAULT_MEMORY = size_t(4) << 30;

size_t page() {
    static const size_t size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    return size;
}

size_t round_up(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

struct Allocation {
    size_t bytes;     // asked for
    size_t mapped;    // accessible, from `GUARD` below the allocation
    unsigned number;  // counts allocations, for reports
};

struct Memory {
    unsigned char* begin;
    size_t range, total, used = 0;
    unsigned count = 0;
    std::map<unsigned char*, Allocation> live;       // by the address that the caller has
    std::multimap<size_t, unsigned char*> reusable;  // ranges given back, by size with both inaccessible ends

    Memory() {
        const char* limit = getenv("ELBO_EMU_MEMORY");
        total = limit != nullptr ? strtoull(limit, nullptr, 10) : DEFAULT_MEMORY;
        // Addresses are reserved generously: guards and gaps are not counted as memory of the device.
        range = 2 * total + (size_t(256) << 20);
        void* memory = mmap(nullptr, range, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            fprintf(stderr, "elbo-emulator: cannot reserve %zu bytes of addresses for the emulated device\n", range);
            abort();
        }
        begin = next = static_cast<unsigned char*>(memory);
    }

    // A range of inaccessible pages of this size.
    unsigned char* take(size_t span) {
        auto found = reusable.find(span);
        if (found != reusable.end()) {
            unsigned char* at = found->second;
            reusable.erase(found);
            return at;
        }
        if (next + span > begin + range) return nullptr;
        unsigned char* at = next;
        next += span;
        return at;
    }

private:
    unsigned char* next;
};

Memory& memory() {
    static Memory* instance = new Memory;
    return *instance;
}

size_t mapped_size(size_t bytes) { return round_up(GUARD + bytes + GUARD, page()); }

}  // namespace

void fill_guard(void* begin, size_t bytes) {
    auto p = static_cast<unsigned char*>(begin);
    for (size_t i = 0; i < bytes; ++i) p[i] = (reinterpret_cast<uintptr_t>(p) + i) & 1 ? 0xff : 0xf1;
}

bool guard_is_whole(const void* begin, size_t bytes) {
    static const auto pattern = [] {
        auto made = new unsigned char[PATTERN + 2];
        fill_guard(made, PATTERN + 2);
        return made + (reinterpret_cast<uintptr_t>(made) & 1);  // even, so that parities agree
    }();
    auto p = static_cast<const unsigned char*>(begin);
    while (bytes > 0) {
        size_t now = std::min(bytes, PATTERN - 1);
        size_t odd = reinterpret_cast<uintptr_t>(p) & 1;
        if (memcmp(p, pattern + odd, now) != 0) return false;
        p += now;
        bytes -= now;
    }
    return true;
}

void* allocate(size_t bytes) {
    Memory& m = memory();
    if (bytes == 0 || bytes > m.total - m.used) return nullptr;
    size_t mapped = mapped_size(bytes), span = mapped + 2 * page();
    unsigned char* range = m.take(span);
    if (range == nullptr) return nullptr;
    unsigned char* start = range + page();
    if (mprotect(start, mapped, PROT_READ | PROT_WRITE) != 0) return nullptr;
    unsigned char* at = start + GUARD;
    fill_guard(start, GUARD);
    memset(at, POISON, bytes);
    fill_guard(at + bytes, mapped - GUARD - bytes);
    m.live[at] = Allocation{bytes, mapped, m.count++};
    m.used += bytes;
    return at;
}

bool release(void* p) {
    Memory& m = memory();
    auto found = m.live.find(static_cast<unsigned char*>(p));
    if (found == m.live.end()) return false;
    unsigned char* start = found->first - GUARD;
    size_t mapped = found->second.mapped;
    m.used -= found->second.bytes;
    m.live.erase(found);
    madvise(start, mapped, MADV_DONTNEED);
    mprotect(start, mapped, PROT_NONE);
    m.reusable.emplace(mapped + 2 * page(), start - page());
    return true;
}

size_t total_memory() { return memory().total; }
size_t free_memory() { return memory().total - memory().used; }

bool is_allocated(const void* p, size_t bytes) {
    Memory& m = memory();
    auto at = static_cast<unsigned char*>(const_cast<void*>(p));
    auto after = m.live.upper_bound(at);
    if (after == m.live.begin()) return false;
    auto [begin, allocation] = *std::prev(after);
    return at >= begin && at <= begin + allocation.bytes && bytes <= static_cast<size_t>(begin + allocation.bytes - at);
}

std::string check_allocations() {
    std::string out;
    for (auto& [at, allocation] : memory().live) {
        size_t behind = allocation.mapped - GUARD - allocation.bytes;
        bool before_is_whole = guard_is_whole(at - GUARD, GUARD);
        if (before_is_whole && guard_is_whole(at + allocation.bytes, behind)) continue;
        char text[160];
        snprintf(text, sizeof text, "wrote %s allocation number %u (%zu bytes at %p)",
                 before_is_whole ? "behind" : "before", allocation.number, allocation.bytes, static_cast<void*>(at));
        if (!out.empty()) out += "; ";
        out += text;
        fill_guard(at - GUARD, GUARD);
        fill_guard(at + allocation.bytes, behind);
    }
    return out;
}

const unsigned char* memory_begin() { return memory().begin; }
const unsigned char* memory_end() { return memory().begin + memory().range; }

}  // namespace emu
