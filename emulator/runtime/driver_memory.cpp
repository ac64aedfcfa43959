// The emulated driver: allocation, copies, fills. Every address range is checked against the allocations.
#include <cstdlib>
#include <cstring>
#include <map>

#include "driver.h"
#include "memory.h"

namespace emu {

namespace {

std::map<const unsigned char*, size_t>& pinned() {
    static auto instance = new std::map<const unsigned char*, size_t>;
    return *instance;
}

unsigned char* device(CUdeviceptr p) { return reinterpret_cast<unsigned char*>(static_cast<uintptr_t>(p)); }

bool on_device(CUdeviceptr p, size_t bytes) { return is_allocated(device(p), bytes); }

Node copy_node(void* to, const void* from, size_t bytes) {
    Node node(Node::COPY);
    node.to = static_cast<unsigned char*>(to);
    node.from = static_cast<const unsigned char*>(from);
    node.bytes = bytes;
    return node;
}

// A copy that the caller waits for: behind everything that was enqueued before.
CUresult copy_now(void* to, const void* from, size_t bytes) {
    CUresult refused = refuse_while_capturing();
    if (refused != CUDA_SUCCESS) return refused;
    CUresult result = enqueue(nullptr, copy_node(to, from, bytes));
    return result != CUDA_SUCCESS ? result : sticky_error();
}

CUresult fill(CUdeviceptr p, uint32_t value, unsigned width, size_t count, CUstream stream) {
    if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
    if (count == 0) return CUDA_SUCCESS;
    if (p % width != 0 || !on_device(p, count * width)) return CUDA_ERROR_INVALID_VALUE;
    Node node(Node::FILL);
    node.to = device(p);
    node.bytes = count * width;
    node.value = value;
    node.width = width;
    return enqueue(stream_or_null(stream), std::move(node));
}

}  // namespace

// Copies from pageable memory of the host to the device so far.
unsigned long long pageable_uploads = 0;

bool is_pinned(const void* host, size_t bytes) {
    auto at = static_cast<const unsigned char*>(host);
    auto after = pinned().upper_bound(at);
    if (after == pinned().begin()) return false;
    auto [begin, size] = *std::prev(after);
    return at + bytes <= begin + size;
}

size_t pinned_memory() {
    size_t bytes = 0;
    for (auto [begin, size] : pinned()) bytes += size;
    return bytes;
}

}  // namespace emu

using namespace emu;

API cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
    return with_context([&] {
        *free_bytes = free_memory();
        *total_bytes = total_memory();
        return CUDA_SUCCESS;
    });
}

API cuMemAlloc_v2(CUdeviceptr* p, size_t bytes) {
    return with_context([&] {
        CUresult refused = refuse_while_capturing();
        if (refused != CUDA_SUCCESS) return refused;
        if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
        void* memory = allocate(bytes);
        *p = reinterpret_cast<uintptr_t>(memory);
        return memory != nullptr ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    });
}

API cuMemFree_v2(CUdeviceptr p) {
    return with_driver([&] {
        if (p == 0) return CUDA_SUCCESS;
        CUresult refused = refuse_while_capturing();
        if (refused != CUDA_SUCCESS) return refused;
        CUresult result = finish_all();
        return release(device(p)) ? result : CUDA_ERROR_INVALID_VALUE;
    });
}

// ---- copies ----

API cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
    return with_context([&] {
        if (!is_pinned(from, bytes)) ++pageable_uploads;
        return on_device(to, bytes) ? copy_now(device(to), from, bytes) : CUDA_ERROR_INVALID_VALUE;
    });
}

API cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
    return with_context([&] {
        return on_device(from, bytes) ? copy_now(to, device(from), bytes) : CUDA_ERROR_INVALID_VALUE;
    });
}

API cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    return with_context([&] {
        bool fits = on_device(to, bytes) && on_device(from, bytes);
        return fits ? copy_now(device(to), device(from), bytes) : CUDA_ERROR_INVALID_VALUE;
    });
}

// Pageable memory is read before the call returns, pinned memory when the copy runs.
API cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    return with_context([&] {
        if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        if (!on_device(to, bytes)) return CUDA_ERROR_INVALID_VALUE;
        Node node = copy_node(device(to), from, bytes);
        if (!is_pinned(from, bytes)) {
            ++pageable_uploads;
            CUresult refused = refuse_on_capturing(stream_or_null(stream));
            if (refused != CUDA_SUCCESS) return refused;
            node.staged.assign(node.from, node.from + bytes);
        }
        return enqueue(stream_or_null(stream), std::move(node));
    });
}

// Into pageable memory the copy is done when the call returns, into pinned memory it runs later.
API cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return with_context([&] {
        if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        if (!on_device(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
        Stream* where = stream_or_null(stream);
        bool later = is_pinned(to, bytes);
        if (!later) {
            CUresult refused = refuse_on_capturing(where);
            if (refused != CUDA_SUCCESS) return refused;
        }
        CUresult result = enqueue(where, copy_node(to, device(from), bytes));
        if (result != CUDA_SUCCESS || later || where == nullptr) return result;
        return finish(where->last);
    });
}

API cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    return with_context([&] {
        if (!is_stream(stream)) return CUDA_ERROR_INVALID_HANDLE;
        if (!on_device(to, bytes) || !on_device(from, bytes)) return CUDA_ERROR_INVALID_VALUE;
        return enqueue(stream_or_null(stream), copy_node(device(to), device(from), bytes));
    });
}

// ---- fills ----

API cuMemsetD8Async(CUdeviceptr p, unsigned char value, size_t count, CUstream stream) {
    return with_context([&] { return fill(p, value, 1, count, stream); });
}
API cuMemsetD16Async(CUdeviceptr p, unsigned short value, size_t count, CUstream stream) {
    return with_context([&] { return fill(p, value, 2, count, stream); });
}
API cuMemsetD32Async(CUdeviceptr p, unsigned value, size_t count, CUstream stream) {
    return with_context([&] { return fill(p, value, 4, count, stream); });
}
API cuMemsetD8_v2(CUdeviceptr p, unsigned char value, size_t count) {
    return cuMemsetD8Async(p, value, count, nullptr);
}
API cuMemsetD16_v2(CUdeviceptr p, unsigned short value, size_t count) {
    return cuMemsetD16Async(p, value, count, nullptr);
}
API cuMemsetD32_v2(CUdeviceptr p, unsigned value, size_t count) { return cuMemsetD32Async(p, value, count, nullptr); }

// ---- pinned memory of the host: fresh, it holds what fresh memory of the device holds ----

API cuMemHostAlloc(void** p, size_t bytes, unsigned) {
    return with_context([&] {
        CUresult refused = refuse_while_capturing();
        if (refused != CUDA_SUCCESS) return refused;
        *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
        if (bytes == 0 || *p == nullptr) return CUDA_ERROR_OUT_OF_MEMORY;
        memset(*p, POISON, bytes);
        pinned()[static_cast<unsigned char*>(*p)] = bytes;
        return CUDA_SUCCESS;
    });
}
API cuMemAllocHost_v2(void** p, size_t bytes) { return cuMemHostAlloc(p, bytes, 0); }

API cuMemFreeHost(void* p) {
    return with_driver([&] {
        finish_all();
        if (pinned().erase(static_cast<unsigned char*>(p)) == 0) return CUDA_ERROR_INVALID_VALUE;
        free(p);
        return CUDA_SUCCESS;
    });
}
