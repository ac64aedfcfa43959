// The emulated driver: initialisation, the one device, its context, error texts, and the emulator's own controls.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"
#include "memory.h"
#include "race.h"
#include "schedule.h"

namespace emu {

namespace {

bool initialised;
Context primary;
thread_local std::vector<Context*> context_stack;

// Shared memory per multiprocessor, by compute capability (CUDA C++ programming guide, technical specifications); one
// block can have 1 KiB less.
unsigned shared_kib() {
    int cc = compute_capability();
    return cc >= 100 ? 228 : cc >= 90 ? 228 : cc == 80 || cc == 87 ? 164 : cc >= 86 ? 100 : 65;
}

}  // namespace

std::recursive_mutex& driver_lock() {
    static auto instance = new std::recursive_mutex;
    return *instance;
}

template <class T>
Handles<T>& handles() {
    static auto instance = new Handles<T>;
    return *instance;
}
Handles<Stream>& streams() { return handles<Stream>(); }
Handles<Event>& events() { return handles<Event>(); }
Handles<Graph>& graphs() { return handles<Graph>(); }
Handles<Exec>& execs() { return handles<Exec>(); }
Handles<Module>& modules() { return handles<Module>(); }
Handles<Function>& functions() { return handles<Function>(); }

bool is_initialised() { return initialised; }
Context* current_context() { return context_stack.empty() ? nullptr : context_stack.back(); }

int compute_capability() {
    static const int value = [] {
        const char* text = getenv("ELBO_EMU_CC");
        return text != nullptr ? atoi(text) : 90;
    }();
    return value;
}

unsigned shared_per_multiprocessor() { return shared_kib() << 10; }
unsigned max_shared_per_block() { return (shared_kib() - 1) << 10; }

namespace {

constexpr int MULTIPROCESSORS = 4;  // few, so that small grids already need several waves

int attribute(int which, bool* known) {
    *known = true;
    switch (which) {
        case MAX_THREADS_PER_BLOCK:
        case MAX_BLOCK_DIM_X:
        case MAX_BLOCK_DIM_Y: return 1024;
        case MAX_BLOCK_DIM_Z: return 64;
        case MAX_GRID_DIM_X: return 0x7fffffff;
        case MAX_GRID_DIM_Y:
        case MAX_GRID_DIM_Z: return 65535;
        case MAX_SHARED_MEMORY_PER_BLOCK: return 48 << 10;
        case TOTAL_CONSTANT_MEMORY: return 64 << 10;
        case WARP_SIZE: return 32;
        case MAX_REGISTERS_PER_BLOCK:
        case MAX_REGISTERS_PER_MULTIPROCESSOR: return 64 << 10;
        case CLOCK_RATE: return 1'000'000;
        case MULTIPROCESSOR_COUNT: return MULTIPROCESSORS;
        case CAN_MAP_HOST_MEMORY:
        case CONCURRENT_KERNELS:
        case ASYNC_ENGINE_COUNT:
        case STREAM_PRIORITIES_SUPPORTED: return 1;
        case MEMORY_CLOCK_RATE: return 1'000'000;
        case GLOBAL_MEMORY_BUS_WIDTH: return 64;
        case L2_CACHE_SIZE: return 4 << 20;
        case MAX_THREADS_PER_MULTIPROCESSOR: return compute_capability() == 75 ? 1024 : 2048;
        case COMPUTE_CAPABILITY_MAJOR: return compute_capability() / 10;
        case COMPUTE_CAPABILITY_MINOR: return compute_capability() % 10;
        case MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: return static_cast<int>(shared_per_multiprocessor());
        case MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: return static_cast<int>(max_shared_per_block());
        case MAX_BLOCKS_PER_MULTIPROCESSOR: return compute_capability() == 75 ? 16 : 32;
        case RESERVED_SHARED_MEMORY_PER_BLOCK: return 1 << 10;
        case KERNEL_EXEC_TIMEOUT:
        case INTEGRATED:
        case COMPUTE_MODE:
        case ECC_ENABLED:
        case PCI_BUS_ID:
        case PCI_DEVICE_ID:
        case PCI_DOMAIN_ID:
        case UNIFIED_ADDRESSING:
        case MANAGED_MEMORY:
        case COOPERATIVE_LAUNCH:
        case MEMORY_POOLS_SUPPORTED:
        case CLUSTER_LAUNCH: return 0;
    }
    *known = false;
    return 0;
}

const struct {
    CUresult code;
    const char *name, *text;
} errors[] = {
#define EMU_ROW(name, number, text) {name, #name, text},
    EMU_ERRORS(EMU_ROW)
#undef EMU_ROW
};

}  // namespace
}  // namespace emu

using namespace emu;

API cuInit(unsigned flags) {
    if (flags != 0) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    initialised = true;
    return CUDA_SUCCESS;
}

API cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}

API cuGetErrorName(CUresult code, const char** name) {
    for (auto& error : errors) {
        if (error.code != code) continue;
        *name = error.name;
        return CUDA_SUCCESS;
    }
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

API cuGetErrorString(CUresult code, const char** text) {
    for (auto& error : errors) {
        if (error.code != code) continue;
        *text = error.text;
        return CUDA_SUCCESS;
    }
    *text = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}

// ---- the device ----

API cuDeviceGetCount(int* count) {
    return with_driver([&] {
        *count = 1;
        return CUDA_SUCCESS;
    });
}

API cuDeviceGet(CUdevice* device, int ordinal) {
    return with_driver([&] {
        *device = 0;
        return ordinal == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
    });
}

API cuDeviceGetName(char* name, int length, CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        if (length <= 0) return CUDA_ERROR_INVALID_VALUE;
        snprintf(name, static_cast<size_t>(length), "elbo emulated device");
        return CUDA_SUCCESS;
    });
}

API cuDeviceGetAttribute(int* value, int which, CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        bool known;
        *value = attribute(which, &known);
        if (!known) fprintf(stderr, "elbo-emulator: device attribute %d is not known\n", which);
        return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    });
}

API cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        *bytes = total_memory();
        return CUDA_SUCCESS;
    });
}

API cuDeviceGetUuid_v2(CUuuid* uuid, CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        memcpy(uuid->bytes, "elbo emulated gp", sizeof uuid->bytes);
        return CUDA_SUCCESS;
    });
}
API cuDeviceGetUuid(CUuuid* uuid, CUdevice device) { return cuDeviceGetUuid_v2(uuid, device); }

// ---- the context ----

API cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        ++primary.users;
        *context = &primary;
        return CUDA_SUCCESS;
    });
}

API cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        if (primary.users == 0) return CUDA_ERROR_INVALID_CONTEXT;
        finish_all();
        // With its last user the context goes, and its error with it.
        if (--primary.users == 0) reset_device();
        return CUDA_SUCCESS;
    });
}

API cuDevicePrimaryCtxReset_v2(CUdevice device) {
    return with_driver([&] {
        if (device != 0) return CUDA_ERROR_INVALID_DEVICE;
        reset_device();
        return CUDA_SUCCESS;
    });
}

API cuCtxSetCurrent(CUcontext context) {
    return with_driver([&] {
        if (context != nullptr && context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
        if (!context_stack.empty()) context_stack.pop_back();
        if (context != nullptr) context_stack.push_back(context);
        return CUDA_SUCCESS;
    });
}

API cuCtxGetCurrent(CUcontext* context) {
    return with_driver([&] {
        *context = current_context();
        return CUDA_SUCCESS;
    });
}

API cuCtxPushCurrent_v2(CUcontext context) {
    return with_driver([&] {
        if (context != &primary) return CUDA_ERROR_INVALID_CONTEXT;
        context_stack.push_back(context);
        return CUDA_SUCCESS;
    });
}

API cuCtxPopCurrent_v2(CUcontext* context) {
    return with_driver([&] {
        if (context_stack.empty()) return CUDA_ERROR_INVALID_CONTEXT;
        if (context != nullptr) *context = context_stack.back();
        context_stack.pop_back();
        return CUDA_SUCCESS;
    });
}

API cuCtxGetDevice(CUdevice* device) {
    return with_context([&] {
        *device = 0;
        return CUDA_SUCCESS;
    });
}

API cuCtxSynchronize() {
    return with_context([&] {
        CUresult refused = refuse_while_capturing();
        return refused != CUDA_SUCCESS ? refused : finish_all();
    });
}

API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    return with_context([&] {
        if (least != nullptr) *least = LEAST_PRIORITY;
        if (greatest != nullptr) *greatest = GREATEST_PRIORITY;
        return CUDA_SUCCESS;
    });
}

// ---- the emulator's own controls ----

#define CONTROL extern "C" __attribute__((visibility("default")))

// 0: done; 1: no such schedule.
CONTROL int elbo_emu_set_schedule(const char* text) {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    finish_all();
    return schedule().set(text) ? 0 : 1;
}

// The last failure of a kernel; valid until the calling thread asks again.
CONTROL const char* elbo_emu_last_report() {
    thread_local std::string copy;
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    copy = last_report();
    return copy.c_str();
}

// Forgets the sticky error and the report, so that a test of failures can go on.
CONTROL void elbo_emu_clear() {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    reset_device();
    clear_report();
}

// How often the host has waited for the device so far: by synchronising, by a copy that it waits for, by giving memory back.
CONTROL unsigned long long elbo_emu_waits() {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    return waits();
}

// How often the host has copied from pageable memory to the device so far.
CONTROL unsigned long long elbo_emu_pageable_uploads() {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    return pageable_uploads;
}

// Bytes of the device's memory and of page-locked memory of the host that are allocated.
CONTROL unsigned long long elbo_emu_memory_in_use() {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    return total_memory() - free_memory() + pinned_memory();
}

// 1: the kernels were compiled for the race detector.
CONTROL int elbo_emu_detects_races() { return race::enabled(); }

// Runs a kernel to its end without the rest of the driver; also for programs that link runtime and kernels directly.
// The result is an Outcome, or -1 if there is no such kernel.
CONTROL int emu_launch(const char* name, const unsigned grid[3], const unsigned block[3], unsigned shared_bytes,
                       const void* params) {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    finish_all();
    const Kernel* kernel = find_kernel(name);
    if (kernel == nullptr) return -1;
    dim3 grid_shape(grid[0], grid[1], grid[2]), block_shape(block[0], block[1], block[2]);
    return static_cast<int>(run(Launch{kernel, grid_shape, block_shape, shared_bytes, params}));
}
