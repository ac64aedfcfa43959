// The part of the CUDA driver's interface that the emulated driver exports: its error codes and types, with the numbers
// and layouts of cuda.h. Handles are pointers to the emulator's own structs.
#pragma once
#include <cstddef>
#include <cstdint>

#define EMU_ERRORS(ROW)                                                                          \
    ROW(CUDA_SUCCESS, 0, "no error")                                                             \
    ROW(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument")                                         \
    ROW(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory")                                            \
    ROW(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error")                                   \
    ROW(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected")                         \
    ROW(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal")                                \
    ROW(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid")                         \
    ROW(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context")                               \
    ROW(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available for execution on the device") \
    ROW(CUDA_ERROR_INVALID_PTX, 218, "a PTX JIT compilation failed")                             \
    ROW(CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222, "the provided PTX was compiled with an unsupported toolchain") \
    ROW(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle")                               \
    ROW(CUDA_ERROR_ILLEGAL_STATE, 401, "the operation cannot be performed in the present state") \
    ROW(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found")                                     \
    ROW(CUDA_ERROR_NOT_READY, 600, "device not ready")                                           \
    ROW(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered")             \
    ROW(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch")      \
    ROW(CUDA_ERROR_MISALIGNED_ADDRESS, 716, "misaligned address")                                \
    ROW(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure")                             \
    ROW(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported")                                \
    ROW(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "operation not permitted when stream is capturing") \
    ROW(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "operation failed due to a previous error during capture") \
    ROW(CUDA_ERROR_STREAM_CAPTURE_MERGE, 902, "operation would result in a merge of separate capture sequences") \
    ROW(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, 903, "capture was not ended in the same stream as it began") \
    ROW(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, 904, "capturing stream has unjoined work")           \
    ROW(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, 905, "dependency created on uncaptured work in another stream") \
    ROW(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, 906, "the legacy stream would depend on a capturing stream") \
    ROW(CUDA_ERROR_CAPTURED_EVENT, 907, "operation not permitted on an event last recorded in a capturing stream") \
    ROW(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, 908, "capture may be ended by the thread that began it only")

enum CUresult : unsigned {
#define EMU_ROW(name, number, text) name = number,
    EMU_ERRORS(EMU_ROW)
#undef EMU_ROW
};

namespace emu {
struct Context;
struct Module;
struct Function;
struct Stream;
struct Event;
struct Graph;
struct Node;
struct Exec;
}  // namespace emu

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = emu::Context*;
using CUmodule = emu::Module*;
using CUfunction = emu::Function*;
using CUstream = emu::Stream*;
using CUevent = emu::Event*;
using CUgraph = emu::Graph*;
using CUgraphNode = emu::Node*;
using CUgraphExec = emu::Exec*;

struct CUuuid {
    char bytes[16];
};

struct CUtensorMap {
    unsigned long long opaque[16];
};
enum CUtensorMapDataType { TENSOR_FLOAT16 = 6, TENSOR_BFLOAT16 = 9, TENSOR_UINT16 = 1, TENSOR_LAST_TYPE = 12 };
enum CUtensorMapInterleave { INTERLEAVE_NONE = 0, INTERLEAVE_LAST = 2 };
enum CUtensorMapSwizzle { SWIZZLE_NONE = 0, SWIZZLE_32B = 1, SWIZZLE_64B = 2, SWIZZLE_128B = 3 };
enum CUtensorMapL2promotion { L2_PROMOTION_NONE = 0, L2_PROMOTION_LAST = 3 };
enum CUtensorMapFloatOOBfill { OOB_FILL_NONE = 0, OOB_FILL_NAN = 1 };

enum CUdevice_attribute {
    MAX_THREADS_PER_BLOCK = 1,
    MAX_BLOCK_DIM_X = 2,
    MAX_BLOCK_DIM_Y = 3,
    MAX_BLOCK_DIM_Z = 4,
    MAX_GRID_DIM_X = 5,
    MAX_GRID_DIM_Y = 6,
    MAX_GRID_DIM_Z = 7,
    MAX_SHARED_MEMORY_PER_BLOCK = 8,
    TOTAL_CONSTANT_MEMORY = 9,
    WARP_SIZE = 10,
    MAX_REGISTERS_PER_BLOCK = 12,
    CLOCK_RATE = 13,
    MULTIPROCESSOR_COUNT = 16,
    KERNEL_EXEC_TIMEOUT = 17,
    INTEGRATED = 18,
    CAN_MAP_HOST_MEMORY = 19,
    COMPUTE_MODE = 20,
    CONCURRENT_KERNELS = 31,
    ECC_ENABLED = 32,
    PCI_BUS_ID = 33,
    PCI_DEVICE_ID = 34,
    MEMORY_CLOCK_RATE = 36,
    GLOBAL_MEMORY_BUS_WIDTH = 37,
    L2_CACHE_SIZE = 38,
    MAX_THREADS_PER_MULTIPROCESSOR = 39,
    ASYNC_ENGINE_COUNT = 40,
    UNIFIED_ADDRESSING = 41,
    PCI_DOMAIN_ID = 50,
    COMPUTE_CAPABILITY_MAJOR = 75,
    COMPUTE_CAPABILITY_MINOR = 76,
    STREAM_PRIORITIES_SUPPORTED = 78,
    MAX_SHARED_MEMORY_PER_MULTIPROCESSOR = 81,
    MAX_REGISTERS_PER_MULTIPROCESSOR = 82,
    MANAGED_MEMORY = 83,
    COOPERATIVE_LAUNCH = 95,
    MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
    MAX_BLOCKS_PER_MULTIPROCESSOR = 106,
    RESERVED_SHARED_MEMORY_PER_BLOCK = 111,
    MEMORY_POOLS_SUPPORTED = 115,
    CLUSTER_LAUNCH = 120,
};

enum CUfunction_attribute {
    FUNC_MAX_THREADS_PER_BLOCK = 0,
    FUNC_SHARED_SIZE_BYTES = 1,
    FUNC_CONST_SIZE_BYTES = 2,
    FUNC_LOCAL_SIZE_BYTES = 3,
    FUNC_NUM_REGS = 4,
    FUNC_PTX_VERSION = 5,
    FUNC_BINARY_VERSION = 6,
    FUNC_CACHE_MODE_CA = 7,
    FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    FUNC_PREFERRED_SHARED_MEMORY_CARVEOUT = 9,
};

enum CUstreamCaptureMode { CAPTURE_GLOBAL = 0, CAPTURE_THREAD_LOCAL = 1, CAPTURE_RELAXED = 2 };
enum CUstreamCaptureStatus { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1, CAPTURE_INVALIDATED = 2 };
enum CUgraphNodeType { NODE_KERNEL = 0, NODE_MEMCPY = 1, NODE_MEMSET = 2 };
enum { STREAM_NON_BLOCKING = 1, EVENT_DISABLE_TIMING = 2 };

enum CUlaunchAttributeID : int {
    ATTRIBUTE_COOPERATIVE = 2,
    ATTRIBUTE_CLUSTER_DIMENSION = 4,
    ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6,
    ATTRIBUTE_PRIORITY = 8,
};
struct CUlaunchAttribute {
    CUlaunchAttributeID id;
    char pad[4];
    union {
        char bytes[64];
        int cooperative;
        struct {
            unsigned x, y, z;
        } cluster;
    } value;
};
enum { DEPENDENCY_PROGRAMMATIC = 1, PORT_PROGRAMMATIC = 1 };
struct CUgraphEdgeData {
    unsigned char from_port, to_port, type, reserved[5];
};
union CUlaunchAttributeValue {
    char bytes[64];
    int priority;
};
struct CUDA_KERNEL_NODE_PARAMS {
    CUfunction function;
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    void** params;
    void** extra;
    void* kernel;  // in the function's place: a kernel without a context
    CUcontext context;
};
struct CUlaunchConfig {
    unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
    CUstream stream;
    const CUlaunchAttribute* attributes;
    unsigned attribute_count;
};
