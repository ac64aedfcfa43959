// The emulated driver: cuTensorMapEncodeTiled, with what the documentation of the real one refuses. What the emulated device
// cannot copy although a GPU could is "not supported".
#include <cstdio>
#include <cstring>

#include "driver.h"
#include "tensor_map.h"

namespace emu {

bool TiledMap::decode(const u64 (&words)[16]) {
    memcpy(static_cast<void*>(this), words, sizeof *this);
    return mark == MARK;
}

void TiledMap::encode(u64 (&words)[16]) const {
    memset(words, 0, sizeof words);
    memcpy(words, this, sizeof *this);
}

namespace {

CUresult refuse(CUresult code, const char* why) {
    fprintf(stderr, "elbo-emulator: cuTensorMapEncodeTiled: %s\n", why);
    return code;
}

bool is_multiple(unsigned long long value, unsigned long long of) { return value % of == 0; }

}  // namespace
}  // namespace emu

using namespace emu;

API cuTensorMapEncodeTiled(CUtensorMap* map, int type, unsigned rank, void* address, const unsigned long long* size,
                           const unsigned long long* strides, const unsigned* box, const unsigned* element_strides,
                           int interleave, int swizzle, int promotion, int fill) {
    auto invalid = [](const char* why) { return refuse(CUDA_ERROR_INVALID_VALUE, why); };
    auto unsupported = [](const char* why) { return refuse(CUDA_ERROR_NOT_SUPPORTED, why); };
    if (compute_capability() < 90) return unsupported("the device has compute capability below 9.0");
    if (map == nullptr || !is_multiple(reinterpret_cast<uintptr_t>(map), 64)) {
        return invalid("the map's own address is no multiple of 64");
    }
    if (rank < 1 || rank > 5) return invalid("the rank is none of 1 to 5");
    if (type < 0 || type > TENSOR_LAST_TYPE || interleave < 0 || interleave > INTERLEAVE_LAST || swizzle < 0 ||
        swizzle > SWIZZLE_128B || promotion < 0 || promotion > L2_PROMOTION_LAST || fill < 0 || fill > OOB_FILL_NAN) {
        return invalid("a type, interleave, swizzle, promotion or fill that there is not");
    }
    if (rank != 2 || interleave != INTERLEAVE_NONE || fill != OOB_FILL_NONE) {
        return unsupported("what is emulated has two dimensions, no interleave, and zeros outside");
    }
    if (type != TENSOR_BFLOAT16 && type != TENSOR_FLOAT16 && type != TENSOR_UINT16) {
        return unsupported("what is emulated has elements of 16 bits");
    }
    if (address == nullptr || !is_multiple(reinterpret_cast<uintptr_t>(address), 16)) {
        return invalid("the matrix begins at no multiple of 16 bytes");
    }
    for (unsigned i = 0; i < rank; ++i) {
        if (size[i] == 0 || size[i] > 1ull << 32) return invalid("a size is none of 1 to 2^32");
        if (box[i] == 0 || box[i] > 256) return invalid("a side of the box is none of 1 to 256");
        if (element_strides[i] == 0 || element_strides[i] > 8) return invalid("an element stride is none of 1 to 8");
        if (element_strides[i] != 1) return unsupported("what is emulated has element strides of 1");
    }
    if (!is_multiple(strides[0], 16) || strides[0] >= 1ull << 40) {
        return invalid("the stride is no multiple of 16 bytes, or not below 2^40");
    }
    if (strides[0] < 2 * size[0]) return invalid("the stride is shorter than a row");
    unsigned inner = 2 * box[0];
    if (!is_multiple(inner, 16)) return invalid("a row of the box is no multiple of 16 bytes");
    if (swizzle != SWIZZLE_NONE && inner > 16u << swizzle) return invalid("a row of the box is longer than the swizzle");
    TiledMap made{TiledMap::MARK, static_cast<unsigned char*>(address), {size[0], size[1]}, strides[0], {box[0], box[1]},
                  static_cast<u32>(swizzle)};
    made.encode(map->opaque);
    return CUDA_SUCCESS;
}
