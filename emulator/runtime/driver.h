// What the files of the emulated driver share: the lock, the checks that begin every call, and the handles.
#pragma once
#include <algorithm>
#include <mutex>
#include <set>

#include "cuda.h"
#include "work.h"

#define API extern "C" __attribute__((visibility("default"))) CUresult

namespace emu {

// One call at a time: kernels run on the thread that makes the call, and there is one set of threadIdx, … .
std::recursive_mutex& driver_lock();

// The handles that exist. A call with any other is refused instead of crashing.
template <class T>
struct Handles {
    std::set<T*> live;

    T* make() {
        T* made = new T();
        live.insert(made);
        return made;
    }
    bool has(const T* handle) const { return live.count(const_cast<T*>(handle)) != 0; }
    void drop(T* handle) {
        live.erase(handle);
        delete handle;
    }
};

// Of streams and of nodes of graphs: 0 is the least.
enum { LEAST_PRIORITY = 0, GREATEST_PRIORITY = -5 };

struct Context {
    unsigned users = 0;
};

struct Module {};

struct Function {
    const Kernel* kernel = nullptr;
    Module* module = nullptr;
    unsigned max_shared = 48 << 10;  // FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES
    int carveout = -1;
};

Handles<Stream>& streams();
Handles<Event>& events();
Handles<Graph>& graphs();
Handles<Exec>& execs();
Handles<Module>& modules();
Handles<Function>& functions();

// A launch of a function as a node, its parameters copied.
CUresult kernel_node(Node& node, CUfunction function, dim3 grid, dim3 block, unsigned shared_bytes, void** params,
                     void** extra);

bool is_initialised();
Context* current_context();

// The null stream, by any of its names.
inline bool is_null_stream(CUstream stream) { return reinterpret_cast<uintptr_t>(stream) <= 2; }
inline bool is_stream(CUstream stream) { return is_null_stream(stream) || streams().has(stream); }
inline Stream* stream_or_null(CUstream stream) { return is_null_stream(stream) ? nullptr : stream; }

// Is this memory of cuMemHostAlloc?
bool is_pinned(const void* host, size_t bytes);
// Bytes of it that are allocated.
size_t pinned_memory();
extern unsigned long long pageable_uploads;

// What the emulated GPU is: 90 for compute capability 9.0; ELBO_EMU_CC.
int compute_capability();
unsigned max_shared_per_block();  // with FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES raised
unsigned shared_per_multiprocessor();

template <class Body>
CUresult with_driver(Body body) {
    std::lock_guard<std::recursive_mutex> guard(driver_lock());
    return is_initialised() ? body() : CUDA_ERROR_NOT_INITIALIZED;
}

template <class Body>
CUresult with_context(Body body) {
    return with_driver([&]() -> CUresult {
        if (current_context() == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
        CUresult error = sticky_error();
        return error != CUDA_SUCCESS ? error : body();
    });
}

}  // namespace emu
