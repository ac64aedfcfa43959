// The handlers that -fsanitize=alignment,bounds,shift calls: what C++ leaves undefined and a GPU does differently, or
// answers with an error of its own. The real handlers print and go on; here the launch fails with the place.
#include <cstdint>

#include "block.h"
#include "launch.h"

namespace {

// The layouts that GCC and Clang share.
struct Location {
    const char* file;
    uint32_t line, column;
};
struct Type {
    uint16_t kind, info;
    char name[1];
};
struct TypeMismatch {
    Location at;
    const Type* type;
    unsigned char log_alignment, check_kind;
};
struct OutOfBounds {
    Location at;
    const Type *array_type, *index_type;
};
struct ShiftOutOfBounds {
    Location at;
    const Type *left, *right;
};

std::string at(const Location& place) {
    return emu::Site{" at", place.file, static_cast<int>(place.line)}.text().substr(3);
}

// An integer as the handlers get it; `info` is twice the logarithm of its width, plus one if it has a sign. Kernels
// have none wider than a pointer.
std::string integer(const Type* type, uintptr_t value) {
    unsigned unused = 64 - (1u << (type->info >> 1));
    if (type->info & 1) return std::to_string(static_cast<int64_t>(uint64_t(value) << unused) >> unused);
    return std::to_string(uint64_t(value) << unused >> unused);
}

}  // namespace

#define HANDLER extern "C" __attribute__((visibility("hidden"))) void

HANDLER __ubsan_handle_type_mismatch_v1(TypeMismatch* data, uintptr_t pointer) {
    std::string type = data->type->name;
    if (pointer == 0) emu::fault(emu::Outcome::ILLEGAL_ADDRESS, "null pointer to " + type + at(data->at));
    std::string multiple = std::to_string(1u << data->log_alignment);
    emu::fault(emu::Outcome::MISALIGNED,
               "access to " + type + " at an address that is no multiple of " + multiple + at(data->at));
}

HANDLER __ubsan_handle_out_of_bounds(OutOfBounds* data, uintptr_t index) {
    emu::fault(emu::Outcome::ILLEGAL_ADDRESS, "index " + integer(data->index_type, index) + " is outside " +
                                                  data->array_type->name + at(data->at));
}

HANDLER __ubsan_handle_shift_out_of_bounds(ShiftOutOfBounds* data, uintptr_t, uintptr_t right) {
    emu::fault(emu::Outcome::FAILED,
               "shift of " + std::string(data->left->name) + " by " + integer(data->right, right) + at(data->at));
}
