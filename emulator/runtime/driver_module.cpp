// The emulated driver: modules, functions, launches. Any image is accepted; a function is found by its name among the
// kernels that this library was built from.
#include <cstdio>
#include <cstring>

#include "driver.h"

using namespace emu;

API cuModuleLoadData(CUmodule* module, const void* image) {
    return with_context([&] {
        if (image == nullptr) return CUDA_ERROR_INVALID_VALUE;
        *module = modules().make();
        return CUDA_SUCCESS;
    });
}
API cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, const int*, void* const*) {
    return cuModuleLoadData(module, image);
}

API cuModuleUnload(CUmodule module) {
    return with_driver([&] {
        if (!modules().has(module)) return CUDA_ERROR_INVALID_HANDLE;
        finish_all();
        auto all = functions().live;
        for (CUfunction function : all) {
            if (function->module == module) functions().drop(function);
        }
        modules().drop(module);
        return CUDA_SUCCESS;
    });
}

API cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    return with_context([&] {
        if (!modules().has(module)) return CUDA_ERROR_INVALID_HANDLE;
        const Kernel* kernel = find_kernel(name);
        if (kernel == nullptr) return CUDA_ERROR_NOT_FOUND;
        // An image of such a file has code for Hopper alone.
        bool hopper = strstr(kernel->file, "_sm90a.cu") != nullptr;
        if (hopper && compute_capability() != 90) return CUDA_ERROR_NOT_FOUND;
        for (CUfunction other : functions().live) {
            if (other->module == module && other->kernel == kernel) {
                *function = other;
                return CUDA_SUCCESS;
            }
        }
        *function = functions().make();
        (*function)->kernel = kernel;
        (*function)->module = module;
        return CUDA_SUCCESS;
    });
}

// ---- functions ----

API cuFuncGetAttribute(int* value, CUfunction_attribute which, CUfunction function) {
    return with_context([&] {
        if (!functions().has(function)) return CUDA_ERROR_INVALID_HANDLE;
        switch (which) {
            case FUNC_MAX_THREADS_PER_BLOCK: *value = static_cast<int>(function->kernel->max_threads); break;
            case FUNC_SHARED_SIZE_BYTES:
            case FUNC_CONST_SIZE_BYTES:
            case FUNC_LOCAL_SIZE_BYTES:
            case FUNC_CACHE_MODE_CA: *value = 0; break;
            case FUNC_NUM_REGS: *value = 32; break;
            case FUNC_PTX_VERSION:
            case FUNC_BINARY_VERSION: *value = compute_capability(); break;
            case FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES: *value = static_cast<int>(function->max_shared); break;
            case FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT: *value = function->carveout; break;
            default: return CUDA_ERROR_INVALID_VALUE;
        }
        return CUDA_SUCCESS;
    });
}

API cuFuncSetAttribute(CUfunction function, CUfunction_attribute which, int value) {
    return with_context([&] {
        if (!functions().has(function)) return CUDA_ERROR_INVALID_HANDLE;
        if (which == FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
            if (value < 0 || static_cast<unsigned>(value) > max_shared_per_block()) return CUDA_ERROR_INVALID_VALUE;
            function->max_shared = static_cast<unsigned>(value);
            return CUDA_SUCCESS;
        }
        if (which == FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT) {
            function->carveout = value;
            return CUDA_SUCCESS;
        }
        return CUDA_ERROR_INVALID_VALUE;
    });
}

API cuFuncSetCacheConfig(CUfunction function, int) {
    return with_context([&] { return functions().has(function) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; });
}

API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, CUfunction function, int threads,
                                                         size_t shared_bytes, unsigned) {
    return with_context([&] {
        if (!functions().has(function)) return CUDA_ERROR_INVALID_HANDLE;
        if (threads <= 0) return CUDA_ERROR_INVALID_VALUE;
        bool turing = compute_capability() == 75;
        size_t by_threads = (turing ? 1024u : 2048u) / ((static_cast<unsigned>(threads) + 31) / 32 * 32);
        size_t by_shared = shared_per_multiprocessor() / (shared_bytes + 1024);
        *blocks = static_cast<int>(std::min({by_threads, by_shared, size_t(turing ? 16 : 32)}));
        if (static_cast<unsigned>(threads) > function->kernel->max_threads) *blocks = 0;
        return CUDA_SUCCESS;
    });
}
API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction function, int threads, size_t shared_bytes) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared_bytes, 0);
}

// ---- launches ----

CUresult emu::kernel_node(Node& node, CUfunction function, dim3 grid, dim3 block, unsigned shared_bytes, void** params,
                          void** extra) {
    // A kernel takes one struct; a buffer of packed arguments is not what this project passes.
    if (extra != nullptr) return CUDA_ERROR_NOT_SUPPORTED;
    if (params == nullptr || params[0] == nullptr) return CUDA_ERROR_INVALID_VALUE;
    const Kernel& kernel = *function->kernel;
    node.kernel = &kernel;
    node.grid = grid;
    node.block = block;
    node.shared_bytes = shared_bytes;
    auto bytes = static_cast<const unsigned char*>(params[0]);
    node.params.assign(bytes, bytes + kernel.params_size);
    bool fits = shared_bytes <= function->max_shared && can_launch(Launch{&kernel, grid, block, shared_bytes, nullptr});
    return fits ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

API cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction function, void** params, void** extra) {
    return with_context([&] {
        if (!functions().has(function) || !is_stream(config->stream)) return CUDA_ERROR_INVALID_HANDLE;
        for (unsigned i = 0; i < config->attribute_count; ++i) {
            const CUlaunchAttribute& attribute = config->attributes[i];
            auto cluster = attribute.value.cluster;
            bool alone = cluster.x * cluster.y * cluster.z == 1;
            if (attribute.id == ATTRIBUTE_CLUSTER_DIMENSION && !alone) return CUDA_ERROR_NOT_SUPPORTED;
            if (attribute.id == ATTRIBUTE_COOPERATIVE && attribute.value.cooperative) return CUDA_ERROR_NOT_SUPPORTED;
        }
        Node node(Node::KERNEL);
        CUresult made = kernel_node(node, function, dim3(config->grid_x, config->grid_y, config->grid_z),
                                    dim3(config->block_x, config->block_y, config->block_z), config->shared_bytes, params,
                                    extra);
        if (made != CUDA_SUCCESS) return made;
        return enqueue(stream_or_null(config->stream), std::move(node));
    });
}

API cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** params,
                   void** extra) {
    CUlaunchConfig config{grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes, stream, nullptr, 0};
    return cuLaunchKernelEx(&config, function, params, extra);
}
