// What a small training step pays for besides arithmetic: a kernel launch, a node of a graph, an edge of it, a barrier
// of the whole grid, a barrier of a cluster.
//
//   nvcc -O3 -std=c++17 -arch=native -o latency benches/latency.cu && ./latency
//
// scripts/gpu-pack.sh compiles it for gpu-check.sh. Every line is a median over repetitions, in microseconds. The last
// line has all of them as JSON. Each barrier is checked before it is timed: where it lets a block through too early,
// the blocks do not see each other's numbers, and the program fails.
//
//   launch                 per launch of a kernel without work, many in a row on one stream
//   graph_launch           a graph of one node, from event to event
//   graph_node             per node that a graph has more, none of which waits for another
//   graph_node_in_a_chain  the same where each waits for the one before
//   graph_edge             the difference of these two: what a dependency costs
//   grid_barrier B x T     per barrier of B blocks of T threads: one atomic addition per block, then polling
//   cluster_barrier N      per barrier of clusters of N blocks of 256 threads; needs compute capability 9.0
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

static void check(cudaError_t error, const char* what, int line) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "latency: line %d: %s: %s\n", line, what, cudaGetErrorString(error));
    std::exit(1);
}
#define CHECK(call) check((call), #call, __LINE__)

static void require(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "latency: %s let a block through too early\n", what);
    std::exit(1);
}

static cudaStream_t stream;

// The median time, in microseconds, of what `enqueue` puts on the stream; the first repetitions warm up.
template <class F>
static double median_us(F enqueue) {
    constexpr int WARM_UP = 3, REPETITIONS = 21;
    cudaEvent_t start, end;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&end));
    std::vector<float> ms(WARM_UP + REPETITIONS);
    for (float& one : ms) {
        CHECK(cudaEventRecord(start, stream));
        enqueue();
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&one, start, end));
    }
    CHECK(cudaEventDestroy(start));
    CHECK(cudaEventDestroy(end));
    std::sort(ms.begin() + WARM_UP, ms.end());
    return 1e3 * ms[WARM_UP + REPETITIONS / 2];
}

// ---- launches and graphs ----

__global__ void nothing() {}

// A graph of `nodes` kernels without work: a chain, or all of them free.
static double graph_us(int nodes, bool chain) {
    cudaGraph_t graph;
    CHECK(cudaGraphCreate(&graph, 0));
    cudaKernelNodeParams params = {};
    params.func = reinterpret_cast<void*>(nothing);
    params.gridDim = dim3(1);
    params.blockDim = dim3(32);
    void* none[1] = {};
    params.kernelParams = none;
    cudaGraphNode_t before, node;
    for (int i = 0; i < nodes; ++i) {
        const int edges = chain && i > 0;
        CHECK(cudaGraphAddKernelNode(&node, graph, edges ? &before : nullptr, edges, &params));
        before = node;
    }
    cudaGraphExec_t ready;
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaGraphUpload(ready, stream));
    const double us = median_us([&] { CHECK(cudaGraphLaunch(ready, stream)); });
    CHECK(cudaGraphExecDestroy(ready));
    CHECK(cudaGraphDestroy(graph));
    return us;
}

// ---- barriers ----

// Every block adds one, then waits until all blocks have added theirs for this round. The counter never goes back, so
// that the rounds need nothing else; 2^32 additions are far away.
static __device__ void grid_barrier(unsigned* counter, unsigned target) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(counter, 1u);
        while (*static_cast<volatile unsigned*>(counter) < target) {
        }
        __threadfence();
    }
    __syncthreads();
}

// `seen` is null when time is taken. Otherwise block b writes the round's number to cells[b], and after the barrier
// reads the cell of another block: a barrier that holds nobody back shows an older number. *seen counts the right ones.
static __global__ void grid_rounds(unsigned* counter, volatile unsigned* cells, unsigned* seen, int rounds) {
    for (int i = 1; i <= rounds; ++i) {
        if (seen && threadIdx.x == 0) cells[blockIdx.x] = i;
        grid_barrier(counter, gridDim.x * (seen ? 2 * i - 1 : i));
        if (!seen) continue;
        if (threadIdx.x == 0 && cells[(blockIdx.x + i) % gridDim.x] == static_cast<unsigned>(i)) atomicAdd(seen, 1u);
        grid_barrier(counter, gridDim.x * 2 * i);  // nobody writes the next number before all have read
    }
}

static double grid_barrier_us(int blocks, int threads) {
    unsigned *memory, *counter, *cells, *seen, *none = nullptr;
    const size_t bytes = sizeof(unsigned) * (64 + blocks);
    CHECK(cudaMalloc(&memory, bytes));
    counter = memory, seen = memory + 32, cells = memory + 64;  // counters in cache lines of their own
    int rounds = 100;
    // A cooperative launch: all blocks run at a time, or none.
    const auto launch = [&](unsigned** seen) {
        void* args[] = {&counter, &cells, seen, &rounds};
        CHECK(cudaMemsetAsync(memory, 0, bytes, stream));
        void* const kernel = reinterpret_cast<void*>(grid_rounds);
        CHECK(cudaLaunchCooperativeKernel(kernel, dim3(blocks), dim3(threads), args, 0, stream));
    };
    launch(&seen);
    unsigned right = 0;
    CHECK(cudaMemcpyAsync(&right, seen, sizeof right, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    require(right == static_cast<unsigned>(blocks * rounds), "the grid barrier");
    // The launch itself is in both and falls out of the difference.
    rounds = 200;
    const double few = median_us([&] { launch(&none); });
    rounds = 2200;
    const double many = median_us([&] { launch(&none); });
    CHECK(cudaFree(memory));
    return (many - few) / 2000;
}

static __device__ void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// As grid_rounds, within clusters of `size` blocks.
static __global__ void cluster_rounds(volatile unsigned* cells, unsigned* seen, int size, int rounds) {
    const int first = blockIdx.x / size * size;
    for (int i = 1; i <= rounds; ++i) {
        if (seen && threadIdx.x == 0) cells[blockIdx.x] = i;
        cluster_barrier();
        if (!seen) continue;
        const int other = first + (blockIdx.x - first + 1 + i % (size - 1)) % size;
        if (threadIdx.x == 0 && cells[other] == static_cast<unsigned>(i)) atomicAdd(seen, 1u);
        cluster_barrier();
    }
}

static double cluster_barrier_us(int size, int blocks) {
    unsigned *memory, *cells, *seen;
    const size_t bytes = sizeof(unsigned) * (32 + blocks);
    CHECK(cudaMalloc(&memory, bytes));
    CHECK(cudaMemset(memory, 0, bytes));
    seen = memory, cells = memory + 32;
    cudaLaunchAttribute cluster = {};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim.x = size;
    cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(256);
    config.stream = stream;
    config.attrs = &cluster;
    config.numAttrs = 1;
    const auto launch = [&](unsigned* seen, int rounds) {
        CHECK(cudaLaunchKernelEx(&config, cluster_rounds, static_cast<volatile unsigned*>(cells), seen, size, rounds));
    };
    launch(seen, 100);
    unsigned right = 0;
    CHECK(cudaMemcpyAsync(&right, seen, sizeof right, cudaMemcpyDeviceToHost, stream));
    CHECK(cudaStreamSynchronize(stream));
    require(right == static_cast<unsigned>(blocks * 100), "the cluster barrier");
    const double few = median_us([&] { launch(nullptr, 1000); });
    const double many = median_us([&] { launch(nullptr, 11000); });
    CHECK(cudaFree(memory));
    return (many - few) / 10000;
}

int main() {
    cudaDeviceProp gpu;
    CHECK(cudaGetDeviceProperties(&gpu, 0));
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const int processors = gpu.multiProcessorCount;
    std::printf("%s, compute capability %d.%d, %d multiprocessors\n", gpu.name, gpu.major, gpu.minor, processors);
    std::string json;
    const auto report = [&](const std::string& name, double us) {
        char number[32];
        std::snprintf(number, sizeof number, "%.4f", us);
        std::printf("%-28s %10s us\n", name.c_str(), number);
        json += (json.empty() ? "\"" : ", \"") + name + "\": " + number;
    };

    constexpr int LAUNCHES = 1000;
    report("launch", median_us([] { for (int i = 0; i < LAUNCHES; ++i) nothing<<<1, 32, 0, stream>>>(); }) / LAUNCHES);
    CHECK(cudaGetLastError());
    report("graph_launch", graph_us(1, false));
    const double node = (graph_us(1100, false) - graph_us(100, false)) / 1000;
    const double link = (graph_us(1100, true) - graph_us(100, true)) / 1000;
    report("graph_node", node);
    report("graph_node_in_a_chain", link);
    report("graph_edge", link - node);
    for (const int threads : {128, 256}) {
        for (const int blocks : {processors / 4, processors}) {
            const std::string what = std::to_string(blocks) + " x " + std::to_string(threads);
            report("grid_barrier " + what, grid_barrier_us(blocks, threads));
        }
    }
    if (gpu.major >= 9) {
        for (const int size : {2, 4, 8}) {
            report("cluster_barrier " + std::to_string(size), cluster_barrier_us(size, 64));
        }
    } else {
        std::printf("cluster_barrier: needs compute capability 9.0\n");
    }
    std::printf("{\"latencies_us\": {%s}}\n", json.c_str());
    return 0;
}
