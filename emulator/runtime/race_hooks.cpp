// What -fsanitize=thread makes kernels call. The names and types are the compilers'; the detector behind them is this
// project's (race.h), because the compilers' own knows OS threads, not blocks, warps and barriers.
#include <cstring>

#include "race.h"

#define HOOK extern "C" __attribute__((visibility("hidden")))
#define PC reinterpret_cast<uintptr_t>(__builtin_return_address(0))

HOOK void __tsan_init() { emu::race::enable(); }
HOOK void __tsan_func_entry(void*) {}
HOOK void __tsan_func_exit() {}
HOOK void __tsan_vptr_update(void**, void*) {}
HOOK void __tsan_vptr_read(void**) {}

#define ACCESS(kind, bytes, write) \
    HOOK void __tsan_##kind##bytes(void* p) { emu::race::access(p, bytes, write, PC); }
#define ACCESSES(bytes)                        \
    ACCESS(read, bytes, false)                 \
    ACCESS(write, bytes, true)                 \
    ACCESS(unaligned_read, bytes, false)       \
    ACCESS(unaligned_write, bytes, true)       \
    ACCESS(volatile_read, bytes, false)        \
    ACCESS(volatile_write, bytes, true)
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)

HOOK void __tsan_read_range(void* p, unsigned long bytes) { emu::race::access(p, bytes, false, PC); }
HOOK void __tsan_write_range(void* p, unsigned long bytes) { emu::race::access(p, bytes, true, PC); }

HOOK void* __tsan_memcpy(void* to, const void* from, size_t bytes) {
    emu::race::access(from, bytes, false, PC);
    emu::race::access(to, bytes, true, PC);
    return memcpy(to, from, bytes);
}
HOOK void* __tsan_memmove(void* to, const void* from, size_t bytes) {
    emu::race::access(from, bytes, false, PC);
    emu::race::access(to, bytes, true, PC);
    return memmove(to, from, bytes);
}
HOOK void* __tsan_memset(void* to, int value, size_t bytes) {
    emu::race::access(to, bytes, true, PC);
    return memset(to, value, bytes);
}
